# Finds PocketFFT's single C++ header (see README.md beside this file), checks that it is the one expected, and writes
#
#   triconv_pocketfft.h        includes it, in a namespace of our own    (directory: TRICONV_POCKETFFT_WRAPPER_DIR)
#   LICENSE.pocketfft.txt      its licence notice                        (file: TRICONV_POCKETFFT_NOTICE)
#
# into the build tree.

# The revision that NumPy pins as its submodule.
set(TRICONV_POCKETFFT_REPOSITORY https://github.com/mreineck/pocketfft.git)
set(TRICONV_POCKETFFT_COMMIT 33ae5dc94c9cdc7f1c78346504a85de87cadaa12)

set(TRICONV_POCKETFFT_INCLUDE "" CACHE PATH "Directory of pocketfft_hdronly.h (default: search)")

# The header in the pythran wheel, if this interpreter has one. find_spec does not import the package.
function(triconv_pythran_pocketfft result)
    execute_process(
        COMMAND ${Python_EXECUTABLE} -c
                "import importlib.util as u; s = u.find_spec('pythran'); print(s.submodule_search_locations[0] if s else '')"
        OUTPUT_VARIABLE package
        OUTPUT_STRIP_TRAILING_WHITESPACE
        COMMAND_ERROR_IS_FATAL ANY
    )
    set(header "${package}/pythonic/numpy/fft/pocketfft.hpp")
    if(package AND EXISTS "${header}")
        set(${result} "${header}" PARENT_SCOPE)
    else()
        set(${result} "" PARENT_SCOPE)
    endif()
endfunction()

function(triconv_find_pocketfft result)
    if(TRICONV_POCKETFFT_INCLUDE)
        set(header "${TRICONV_POCKETFFT_INCLUDE}/pocketfft_hdronly.h")
        if(NOT EXISTS "${header}")
            message(FATAL_ERROR "TRICONV_POCKETFFT_INCLUDE is ${TRICONV_POCKETFFT_INCLUDE}, "
                                "which has no pocketfft_hdronly.h")
        endif()
        set(${result} "${header}" PARENT_SCOPE)
        return()
    endif()
    find_file(TRICONV_POCKETFFT_SYSTEM_HEADER pocketfft_hdronly.h PATH_SUFFIXES pocketfft)
    mark_as_advanced(TRICONV_POCKETFFT_SYSTEM_HEADER)
    if(TRICONV_POCKETFFT_SYSTEM_HEADER)
        set(${result} "${TRICONV_POCKETFFT_SYSTEM_HEADER}" PARENT_SCOPE)
        return()
    endif()
    triconv_pythran_pocketfft(header)
    if(NOT header)
        include(FetchContent)
        FetchContent_Declare(pocketfft GIT_REPOSITORY ${TRICONV_POCKETFFT_REPOSITORY}
                                       GIT_TAG ${TRICONV_POCKETFFT_COMMIT})
        FetchContent_MakeAvailable(pocketfft)
        set(header "${pocketfft_SOURCE_DIR}/pocketfft_hdronly.h")
    endif()
    set(${result} "${header}" PARENT_SCOPE)
endfunction()

# Sets `result` to the licence notice, the comment at the head of the file; an error if this is not PocketFFT's header.
function(triconv_check_pocketfft header result)
    file(READ "${header}" text)
    foreach(
        expected
        "This file is part of pocketfft."
        "Redistribution and use in source and binary forms, with or without modification,"
        "namespace pocketfft"
        "class pocketfft_c"
        "class pocketfft_r"
    )
        string(FIND "${text}" "${expected}" position)
        if(position EQUAL -1)
            message(FATAL_ERROR "${header} is not the PocketFFT header expected: it has no \"${expected}\"")
        endif()
    endforeach()
    string(FIND "${text}" "/*" begin)
    string(FIND "${text}" "*/" end)
    math(EXPR begin "${begin} + 2")
    math(EXPR length "${end} - ${begin}")
    if(length LESS 1)
        message(FATAL_ERROR "${header} does not begin with a licence notice")
    endif()
    string(SUBSTRING "${text}" ${begin} ${length} notice)
    string(STRIP "${notice}" notice)
    set(${result} "${notice}" PARENT_SCOPE)
endfunction()

triconv_find_pocketfft(TRICONV_POCKETFFT_HEADER)
triconv_check_pocketfft("${TRICONV_POCKETFFT_HEADER}" notice)
message(STATUS "PocketFFT: ${TRICONV_POCKETFFT_HEADER}")

set(TRICONV_POCKETFFT_WRAPPER_DIR ${PROJECT_BINARY_DIR}/third_party)
set(TRICONV_POCKETFFT_NOTICE ${TRICONV_POCKETFFT_WRAPPER_DIR}/LICENSE.pocketfft.txt)
file(CONFIGURE OUTPUT ${TRICONV_POCKETFFT_NOTICE} CONTENT "${notice}\n" @ONLY)
configure_file(${CMAKE_CURRENT_LIST_DIR}/triconv_pocketfft.h.in ${TRICONV_POCKETFFT_WRAPPER_DIR}/triconv_pocketfft.h @ONLY)

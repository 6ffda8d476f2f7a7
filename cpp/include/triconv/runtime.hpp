/// @file
/// Settings of the process: threads, memory, a host's own of both; and information about the build and the machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "triconv/export.h"

namespace triconv {

/// Threads a run uses at most; results do not depend on it. The first value comes from TRICONV_NUM_THREADS, else from
/// the number of cores this process may use.
/// @throws std::invalid_argument if `count` is less than 1 or more than 65536.
TRICONV_API void set_num_threads(int count);
/// @return At least 1; 1 inside a task of the library.
/// @throws std::invalid_argument if TRICONV_NUM_THREADS is not an integer from 1 to 65536.
TRICONV_API int num_threads();

/// A host's parallel-for, to be used instead of the library's threads. A run is a sequence of calls of it.
struct HostParallelFor {
    /// Calls piece(run, i) once for each i in [0, pieces), in any order, on any threads, one after the other or at the
    /// same time, and returns when all have ended. No piece waits for another, and none calls the host again; no exception
    /// leaves a piece. There are at most num_threads() pieces, and more than one.
    ///
    /// It may be called from several threads at a time, and from within the host's own tasks. What it throws, when no
    /// piece is running any more, leaves the run.
    void (*run)(void* context, int pieces, void (*piece)(void* run, int index), void* piece_run) = nullptr;
    void* context = nullptr;  ///< given back in each call
};

/// Sets the parallel-for of the process; with a null `run`, the library's own threads are used again. Runs in progress
/// may go on using the one before, which must live until they have ended. Results are the same bits.
TRICONV_API void set_parallel_for(const HostParallelFor& host);

/// A host's memory for workspaces, prepared weights, steps and lend_memory; plans and a little bookkeeping still come from
/// operator new. Called from several threads at a time.
struct HostAllocator {
    /// @return `bytes` bytes aligned to `alignment`, or null if there are none: the run throws std::bad_alloc.
    void* (*allocate)(void* context, std::size_t bytes, std::size_t alignment) = nullptr;
    /// Takes back what `allocate` gave, with the same number of bytes. Must not throw.
    void (*deallocate)(void* context, void* data, std::size_t bytes) = nullptr;
    void* context = nullptr;  ///< given back in each call
};

/// Sets the allocator of the process; with null functions, the library's own memory is used again. What is in use goes
/// back to where it came from, so that an allocator must live until that has happened. The library keeps no memory of a
/// host's for reuse: each block is given back as soon as a run ends.
/// @throws std::invalid_argument if one of the functions is null and the other is not.
TRICONV_API void set_allocator(const HostAllocator& host);

/// Workspaces are kept for reuse, up to max_idle_bytes(). This gives those not in use back to the system.
/// @return The bytes given back.
TRICONV_API std::size_t release_memory();

/// Memory from the pool of workspaces, for results that are made again and again: fresh pages can cost more than a pass.
/// @return `bytes` bytes or more, 64-byte aligned, contents undefined. Never null.
/// @throws std::bad_alloc
TRICONV_API void* lend_memory(std::size_t bytes);
/// @param data What lend_memory gave. Any thread may return it.
TRICONV_API void return_memory(void* data) noexcept;
/// @return Bytes of lent memory that may be used: at least those asked for.
TRICONV_API std::size_t memory_capacity(void* data);
/// @return What the pool keeps at most: the environment variable TRICONV_MAX_IDLE_MIB, 1 GiB without it, 0 for no pool.
/// @throws std::invalid_argument if the variable is not a number.
TRICONV_API std::size_t max_idle_bytes();

/// What was built, and the instruction set in use.
struct BuildInfo {
    std::string version;            ///< of the library
    std::string compiler;           ///< name and version
    std::string flags;              ///< that all files were compiled with
    std::vector<std::string> isas;  ///< compiled in, least to most capable
    std::string isa;                ///< in use; TRICONV_MAX_ISA lowers it
};
/// @throws std::invalid_argument if TRICONV_MAX_ISA is unknown or not supported here.
TRICONV_API BuildInfo build_info();

/// What, with the ISA and the number of threads, the times of the passes depend on.
struct CpuInfo {
    std::string model;         ///< as the processor names itself; "unknown" where it does not
    std::int64_t l1d, l2, l3;  ///< bytes of cache, l1d and l2 of a core; defaults where the system does not tell
};
/// @return The same in every call.
TRICONV_API CpuInfo cpu_info();

}  // namespace triconv

// Work without the GIL.
#pragma once

#include <Python.h>
#include <unistd.h>

namespace triconv::python {

// Releases the GIL for the length of its scope. Once the interpreter has begun to end, a thread that wants the GIL back
// never gets it: Python 3.14 holds it up, versions before end it by unwinding its stack (with glibc). That would destroy
// Python objects without the GIL, and terminate the process at the first destructor that nothing may leave, as that of
// py::gil_scoped_release; so the thread is held up here, until the process is gone.
class ReleasedGil {
public:
    ReleasedGil() : state_(PyEval_SaveThread()) {}
    ~ReleasedGil() {
        try {
            PyEval_RestoreThread(state_);
        } catch (...) {
            for (;;)
                pause();
        }
    }
    ReleasedGil(const ReleasedGil&) = delete;
    ReleasedGil& operator=(const ReleasedGil&) = delete;

private:
    PyThreadState* state_;
};

}  // namespace triconv::python

// What becomes of a forked child, for tests: one that hangs ends after ten seconds.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <functional>

namespace triconv::test {

// Runs `body` in a forked child. Whether it returned true, within ten seconds.
inline bool succeeds_in_child(const std::function<bool()>& body) {
    const pid_t child = fork();
    if (child == 0) {
        alarm(10);
        _exit(body() ? 0 : 1);
    }
    int status = 0;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace triconv::test

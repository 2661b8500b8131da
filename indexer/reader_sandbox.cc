#include "indexer/reader_sandbox.h"

#include <seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <memory>

namespace mirage {
namespace {

// A directory of a million names takes some 100 MB.
constexpr rlim_t kMemoryBytes = rlim_t{2} << 30;

Status Limit(decltype(RLIMIT_AS) what, rlim_t value) {
  const rlimit limit{value, value};
  if (setrlimit(what, &limit) != 0) return FailErrno(errno, "cannot set a limit");
  return {};
}

}  // namespace

Status EnterSandbox() {
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) return FailErrno(errno, "cannot tie the disk reader to its parent");
  TRY(Limit(RLIMIT_CORE, 0));  // it would hold the image's secrets
  TRY(Limit(RLIMIT_FSIZE, 0));
#if !defined(__SANITIZE_ADDRESS__)
  TRY(Limit(RLIMIT_AS, kMemoryBytes));
#endif
  const std::unique_ptr<void, void (*)(void*)> filter(seccomp_init(SCMP_ACT_KILL_PROCESS),
                                                      [](void* context) { seccomp_release(context); });
  if (!filter) return FailErrno(ENOMEM, "cannot make a system call filter");
  for (const int call : {
         SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(pread64), SCMP_SYS(lseek), SCMP_SYS(fstat), SCMP_SYS(newfstatat),
             SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(futex), SCMP_SYS(fadvise64),
             SCMP_SYS(clock_gettime), SCMP_SYS(getrandom), SCMP_SYS(rt_sigreturn), SCMP_SYS(exit), SCMP_SYS(exit_group),
#if defined(__SANITIZE_ADDRESS__)
             SCMP_SYS(sigaltstack), SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(rt_sigprocmask),
             SCMP_SYS(rt_sigaction), SCMP_SYS(mprotect), SCMP_SYS(sched_yield),
#endif
       }) {
    // Calls that this architecture does not have are none to allow.
    if (const int code = seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, call, 0); code < 0 && code != -EDOM) {
      return FailErrno(-code, "cannot make a system call filter");
    }
  }
  // Memory, but none that could be executed, and no files. PROT_READ and PROT_WRITE are 1 and 2.
  int code = seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2,
                              SCMP_A2(SCMP_CMP_MASKED_EQ, ~scmp_datum_t{3}, 0),
                              SCMP_A4(SCMP_CMP_MASKED_EQ, 0xffffffff, 0xffffffff));
  // malloc of a second arena; never with PROT_EXEC.
#if !defined(__SANITIZE_ADDRESS__)
  if (code == 0) {
    code = seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
                            SCMP_A2(SCMP_CMP_MASKED_EQ, ~scmp_datum_t{3}, 0));
  }
#endif
  // libblkid asks every device for its kind; a file gives the same answer.
  if (code == 0) code = seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(ENOTTY), SCMP_SYS(ioctl), 0);
  if (code == 0) code = seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(EPERM), SCMP_SYS(fcntl), 0);
  if (code == 0) code = seccomp_load(filter.get());
  if (code != 0) return FailErrno(-code, "cannot make a system call filter");
  return {};
}

}  // namespace mirage

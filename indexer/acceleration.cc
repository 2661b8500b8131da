#include "indexer/acceleration.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <system_error>
#include <thread>

namespace mirage {
namespace {

constexpr auto kProbeTime = std::chrono::seconds(3);
constexpr uint32_t kProbeSteps = 1U << 24;

#if defined(__x86_64__)
constexpr uint32_t kMaxCpuidEntries = 256;

// The header's kvm_cpuid2 has another size in C++ than in C (its flexible array), and so have the requests made of it.
struct CpuFeatures {
  uint32_t count, padding;
  kvm_cpuid_entry2 entries[kMaxCpuidEntries];
};
constexpr unsigned long kGetFeatures = _IOWR(KVMIO, 0x05, uint64_t), kSetFeatures = _IOW(KVMIO, 0x90, uint64_t);

// The guest's memory: one large page, mapped to itself. Page tables and segments at its beginning, then the program.
constexpr size_t kMemoryBytes = size_t{2} << 20;
constexpr uint64_t kTopTable = 0x1000, kMiddleTable = 0x2000, kPageTable = 0x3000, kSegments = 0x4000,
                   kProgram = 0x5000;

// System calls and memory alone, as everything here: a forked child of a program with threads.
void FillMemory(char* memory, uint32_t steps) {
  const auto put = [memory](uint64_t at, uint64_t value) { std::memcpy(memory + at, &value, sizeof value); };
  put(kTopTable, kMiddleTable | 3);  // present, writable
  put(kMiddleTable, kPageTable | 3);
  put(kPageTable, 0x83);                    // a page of 2 MiB at 0
  put(kSegments + 8, 0x00af9b000000ffff);   // 64-bit code
  put(kSegments + 16, 0x00cf93000000ffff);  // data
  // mov ecx, steps; dec ecx; jnz, to dec; hlt
  unsigned char program[] = {0xb9, 0, 0, 0, 0, 0xff, 0xc9, 0x75, 0xfc, 0xf4};
  std::memcpy(program + 1, &steps, sizeof steps);
  std::memcpy(memory + kProgram, program, sizeof program);
}

bool SetProcessor(int kvm, int cpu) {
  CpuFeatures features{};
  features.count = kMaxCpuidEntries;
  if (ioctl(kvm, kGetFeatures, &features) < 0 || ioctl(cpu, kSetFeatures, &features) < 0) return false;
  kvm_sregs special;
  if (ioctl(cpu, KVM_GET_SREGS, &special) < 0) return false;
  kvm_segment data{};
  data.limit = 0xffffffff;
  data.selector = 16;
  data.type = 3;
  data.present = data.s = data.g = data.db = 1;
  special.ds = special.es = special.fs = special.gs = special.ss = data;
  special.cs = data;
  special.cs.selector = 8;
  special.cs.type = 11;
  special.cs.db = 0;
  special.cs.l = 1;
  special.gdt.base = kSegments;
  special.gdt.limit = 23;
  special.cr3 = kTopTable;
  special.cr4 |= 0x20;       // PAE
  special.cr0 = 0x80050033;  // paging, protected mode and what a kernel has beside them
  special.efer = 0x500;      // long mode enabled and active
  kvm_regs registers{};
  registers.rip = kProgram;
  registers.rflags = 2;
  return ioctl(cpu, KVM_SET_SREGS, &special) == 0 && ioctl(cpu, KVM_SET_REGS, &registers) == 0;
}
#endif

// In the child. Returns its exit status.
int RunGuest([[maybe_unused]] uint32_t steps) {
  const int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm < 0) return 1;
  const int vm = ioctl(kvm, KVM_CREATE_VM, 0);
  if (vm < 0) return 1;
  const int cpu = ioctl(vm, KVM_CREATE_VCPU, 0);
  if (cpu < 0) return 1;
#if defined(__x86_64__)
  void* memory = mmap(nullptr, kMemoryBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 1;
  kvm_userspace_memory_region region{};
  region.memory_size = kMemoryBytes;
  region.userspace_addr = reinterpret_cast<uint64_t>(memory);
  if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0) return 1;
  const int run_bytes = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
  if (run_bytes < static_cast<int>(sizeof(kvm_run))) return 1;
  void* run = mmap(nullptr, static_cast<size_t>(run_bytes), PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
  if (run == MAP_FAILED) return 1;
  FillMemory(static_cast<char*>(memory), steps);
  if (!SetProcessor(kvm, cpu)) return 1;
  while (ioctl(cpu, KVM_RUN, 0) < 0) {
    if (errno != EINTR && errno != EAGAIN) return 1;
  }
  return static_cast<kvm_run*>(run)->exit_reason == KVM_EXIT_HLT ? 0 : 1;
#else
  return 0;  // that a processor can be made is all that is asked elsewhere
#endif
}

}  // namespace

std::string RunProbeGuest(uint32_t steps) {
  if (access("/dev/kvm", R_OK | W_OK) != 0) return "/dev/kvm: " + std::generic_category().message(errno);
  const pid_t child = fork();
  if (child < 0) return std::generic_category().message(errno);
  if (child == 0) {
    close_range(0, ~0U, 0);  // above all the library's locks: a hanging child must not hold them
    _exit(RunGuest(steps));
  }
  const auto deadline = std::chrono::steady_clock::now() + kProbeTime;
  int status = 0;
  while (waitpid(child, &status, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() > deadline) {
      kill(child, SIGKILL);
      // It may hang in the kernel beyond the reach of SIGKILL; then it is left to init.
      for (int i = 0; i < 20 && waitpid(child, nullptr, WNOHANG) == 0; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
      return "it hangs, or is slower than emulation";
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? "" : "it fails";
}

std::string ProbeHardwareAcceleration() {
  static const std::string why = RunProbeGuest(kProbeSteps);
  return why;
}

}  // namespace mirage

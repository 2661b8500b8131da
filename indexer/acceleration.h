// Whether this machine's hardware acceleration of virtual machines (/dev/kvm) is of use to the appliance.
#pragma once

#include <cstdint>
#include <string>

namespace mirage {

// Empty: it is; otherwise why not. A guest counts to 2^24 (RunProbeGuest): some 10 ms where the machine's processor
// does it. Two kinds of nested hosts are told by that: those where a guest neither works nor fails, and those whose
// /dev/kvm interprets a guest, instruction by instruction (measured: 600,000 a second, where QEMU's software
// emulation makes some hundred million). A single instruction, or a BIOS, runs on the latter; a kernel does not come
// up in minutes. A process asks once.
std::string ProbeHardwareAcceleration();

// A processor in 64-bit mode, in a child process, counts down from `steps` and halts. It has three seconds. Empty: it
// did; otherwise why not. On other machines than x86-64 the processor is made, not run.
std::string RunProbeGuest(uint32_t steps);

}  // namespace mirage

// The disk reader's filesystems, as they run in the sandbox: an input is the beginning of an image, zeros follow to the
// length that its superblock says. What a walk says must be what the parent takes (direct_source.cc), and of a walk
// that went well every file must be whole; in FAT it also has its clusters for itself.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mirage::testing {

void RunFat(std::string_view bytes);
std::vector<std::string> FatSeeds();

// Of libext2fs the limits show what is ours: it is not compiled for the fuzzer.
void RunExt(std::string_view bytes);
std::vector<std::string> ExtSeeds();  // by mke2fs

}  // namespace mirage::testing

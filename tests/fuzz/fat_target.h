// The disk reader's FAT, as it runs in the sandbox: an input is the beginning of an image, zeros follow to the length
// that its boot sector says. What a walk says must be what the parent takes (direct_source.cc), and of a walk that went
// well every file must be whole and have its clusters for itself.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mirage::testing {

void RunFat(std::string_view bytes);
std::vector<std::string> FatSeeds();

}  // namespace mirage::testing

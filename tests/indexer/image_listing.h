// What the direct reader makes of an image, as text: for images that are damaged at random.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "store/result.h"

namespace mirage::testing {

// All that a tree's identity holds but for contents, by path.
Result<std::map<std::string, std::string>> ListImage(const std::string& image);

// Where in an image something is written, in steps of 64 bytes: bits are flipped there.
std::vector<size_t> WrittenPlaces(std::string_view image);

// A number from the environment.
uint64_t Setting(const char* name, uint64_t otherwise);

}  // namespace mirage::testing

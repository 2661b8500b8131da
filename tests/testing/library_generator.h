// Makes large libraries in short time, for what is to hold at any scale: a branch of many versions of a tree of two
// levels, each a few changed files away from the one before. The files are small; the same seed gives the same trees.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "store/library.h"

namespace mirage::testing {

struct LibraryShape {
  int versions = 1'000;
  int directories = 500;  // below the root: directory-NNNNN
  int files = 100;        // in each: file-NNNNNNN
  int changes = 5;        // files changed a version, each in a directory of its own
  uint64_t seed = 1;
};

// Publishes the versions as v1, v2, ... of a new branch. `published`, if given, hears of each. Every file's content is
// one of a hundred, but for those that were changed, which are each their own.
Status GenerateLibrary(const std::shared_ptr<Library>& library, const std::string& branch, const LibraryShape& shape,
                       const std::function<void(int version)>& published = {});

std::string GeneratedPath(int directory, int file);  // "directory-00003/file-0000042"

}  // namespace mirage::testing

// A file that is mostly holes, read through the appliance without its holes.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "indexer/appliance.h"
#include "indexer/image_source.h"
#include "indexer/tree_scan.h"

namespace mirage {

// `directory`: the tree's top in the appliance; `prefix`: in the version.
Status ReadSparseFile(Appliance& appliance, const std::string& directory, const std::string& prefix,
                      const SparseFile& file, ImportSink& sink);

// Where a file has data: begin and length, ascending, from what filefrag(8) prints with -v -b1. Nothing: that is not
// what it prints.
using DataRange = std::pair<uint64_t, uint64_t>;
std::optional<std::vector<DataRange>> ParseFilefrag(std::string_view text);

}  // namespace mirage

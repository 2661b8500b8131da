// A recipe: many images to be imported in one go (examples/recipe.yaml).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "indexer/importer.h"

namespace mirage {

struct RecipeEntry {
  ImportOptions options;  // paths absolute, or relative to the working directory
  int line = 0;           // of the recipe, from 1
};

constexpr size_t kMaxRecipeBytes = 1 << 20;

// `directory`: of the recipe, from where its relative paths start. EINVAL, with file and line: not YAML, a setting that
// is not known, missing or of the wrong kind, a bad name, one tag for two images.
Result<std::vector<RecipeEntry>> ParseRecipe(std::string_view yaml, std::string_view file_name,
                                             const std::string& directory);

// Whether the entry is done: its tag is there, and is of a version from the same source. An entry without a tag never
// is. EEXIST: the tag is that of something else.
Result<bool> IsDone(const Snapshot& snapshot, const ImportOptions& entry);

}  // namespace mirage

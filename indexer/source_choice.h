// Which source an import reads: by what the options say, and else by what the file is.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "indexer/container_source.h"
#include "indexer/exclusion.h"
#include "indexer/importer.h"
#include "store/library.h"

namespace mirage {

// What the imports of an image's layers share.
struct LayerRun {
  std::shared_ptr<ContainerState> state;
  size_t layers = 0;              // of the version to be made; 0: how many the branch has is to be found out
  std::optional<ObjectId> lower;  // the version of one layer less
  bool again = false;             // all of the layers are there, but not as the head
};

// Null: it is no container image.
Result<std::shared_ptr<ContainerState>> OpenContainer(const ImportOptions& options, const std::string& scratch);

// The errors are the user's to hear: EINVAL, EISDIR, ENOTDIR: the options do not fit the file; EOPNOTSUPP: --reader direct of
// what it does not read; or what the source itself says. `scratch`: a directory for what must be unpacked first. `say`: by
// which road, in words.
Result<std::unique_ptr<ImageSource>> OpenSource(Library& library, const ImportOptions& options, LayerRun& run,
                                                const Exclusion& exclusion, const std::string& scratch,
                                                const std::function<void(std::string_view)>& say);

}  // namespace mirage

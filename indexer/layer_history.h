// Which of a container image's layers a branch already has as versions. Each version that is made of layers has their
// chain in its inspection: OCI's ChainID, SHA-256 over the digests of all of them, uncompressed, in order.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "indexer/container_image.h"
#include "store/library.h"

namespace mirage {

// "sha256:..." of the lowest one, two, ... of the layers.
std::vector<std::string> LayerChains(const std::vector<ContainerLayer>& layers);

struct LayersThere {
  size_t count = 0;                 // how many of the lowest layers make up the version
  std::optional<ObjectId> version;  // of those with the most of these layers and no others, the newest; null: there is none
  std::optional<ObjectId> below;    // a version of one layer less
};
// Looks from a version back along first parents, at most kMaxLayerSearch of them, and no further than to one that cannot
// be read. `left_out`: the patterns of the import, in order; versions that left out anything else are others.
constexpr size_t kMaxLayerSearch = 4096;
LayersThere FindLayers(const ObjectReader& reader, const ObjectId& from,
                               const std::vector<std::string>& chains, const std::vector<std::string>& left_out);

// What an import says of a pattern whose paths it left out, among the version's omissions.
inline constexpr std::string_view kLeftOutOnRequest = "left out on request: ";

}  // namespace mirage

#include "indexer/layer_history.h"

#include <algorithm>
#include <map>

#include "indexer/system_description.h"
#include "store/object_id.h"

namespace mirage {
namespace {

bool LeftOut(const Manifest& manifest, const std::vector<std::string>& patterns) {
  std::vector<std::string> own;
  for (const std::string& omission : manifest.omissions) {
    if (omission.starts_with(kLeftOutOnRequest)) own.push_back(omission.substr(kLeftOutOnRequest.size()));
  }
  return own == patterns;
}

// 0: it is not made of the lowest of these layers, or does not say.
size_t CountLayers(const ObjectReader& reader, const ObjectId& inspection, const std::vector<std::string>& chains) {
  const auto text = reader.ReadObject(ObjectKind::kInspection, inspection);
  if (!text) return 0;
  const auto system = DecodeSystem(*text);
  if (!system || system->layers.empty()) return 0;
  const auto found = std::find(chains.begin(), chains.end(), system->layers);
  return found == chains.end() ? 0 : static_cast<size_t>(found - chains.begin()) + 1;
}

}  // namespace

std::vector<std::string> LayerChains(const std::vector<ContainerLayer>& layers) {
  std::vector<std::string> chains;
  for (const ContainerLayer& layer : layers) {
    const std::string own = "sha256:" + layer.diff_id;
    chains.push_back(chains.empty() ? own : "sha256:" + HashBytes(fmt::format("{} {}", chains.back(), own)).Hex());
  }
  return chains;
}

LayersThere FindLayers(const ObjectReader& reader, const ObjectId& from, const std::vector<std::string>& chains,
                       const std::vector<std::string>& left_out) {
  std::map<ObjectId, size_t> counts;    // by inspection: many versions share one
  std::map<size_t, ObjectId> versions;  // the newest of so many layers
  ObjectId id = from;
  for (size_t i = 0; i < kMaxLayerSearch; ++i) {
    const auto manifest = ReadManifest(reader, id);
    if (!manifest) break;
    if (!manifest->inspection.IsZero() && LeftOut(*manifest, left_out)) {
      const auto [count, is_new] = counts.emplace(manifest->inspection, 0);
      if (is_new) count->second = CountLayers(reader, manifest->inspection, chains);
      if (count->second > 0) versions.emplace(count->second, id);
      // The one below is wanted too, and lies behind it.
      if (versions.contains(chains.size()) && (chains.size() == 1 || versions.contains(chains.size() - 1))) break;
    }
    if (manifest->parents.empty()) break;
    id = manifest->parents.front();
  }
  LayersThere there;
  if (versions.empty()) return there;
  there.count = versions.rbegin()->first;
  there.version = versions.rbegin()->second;
  if (const auto below = versions.find(there.count - 1); below != versions.end()) there.below = below->second;
  return there;
}

}  // namespace mirage

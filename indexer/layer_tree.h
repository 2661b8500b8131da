// What the names of a container image mean after so many of its layers: which member of which layer each path is. Layers
// are applied as the OCI image specification says: whiteouts (`.wh.NAME`) hide what lower layers have under a name,
// `.wh..wh..opq` all they have in a directory, and never what the same layer has. A directory on the way to a member
// may be a symbolic link of a lower layer: it is followed, in the tree alone. Memory grows with the number of names.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "indexer/name_memory.h"
#include "indexer/tar_stream.h"
#include "store/object.h"
#include "store/result.h"

namespace mirage {

// A member of a layer and, in order, the paths that it has in the tree.
struct LayerFile {
  uint32_t layer = 0;
  uint64_t ordinal = 0;  // among the layer's members
  std::vector<std::string> paths;
};

class LayerTree {
 public:
  explicit LayerTree(uint64_t name_bytes = kNameMemoryBytes);
  // The members of the next layer: Begin, Take for each in its order, End.
  void Begin();
  // EINVAL: a tree that cannot be. EIO: a whiteout of no name. E2BIG: too many names.
  Status Take(const TarMember& member);
  Status End();
  uint32_t layers() const { return layers_; }

  // Sorted by layer and ordinal; directories that no layer has are in MadeDirectories alone.
  std::vector<LayerFile> Files() const;
  std::vector<std::string> MadeDirectories() const;

 private:
  static constexpr size_t kNodeBytes = 320;  // in memory: a node, and what Files makes of it, beside its path
  static constexpr uint64_t kMade = UINT64_MAX;  // the ordinal of a directory that no layer has
  struct Node {
    uint32_t placed = 0;  // the layer that has the name
    uint32_t layer = 0;   // the layer that has what it names, which is lower for a hard link to a file of a lower one
    uint64_t ordinal = kMade;
    FileType type = FileType::kDirectory;
    std::string target;  // of a symbolic link
  };
  using Nodes = std::map<std::string, Node, std::less<>>;

  uint32_t current() const { return layers_ - 1; }
  // The directory that a path means, links followed. What is not there is made; without `make` it is ENOENT.
  Result<std::string> Resolve(std::string_view path, bool make);
  Status Place(const std::string& path, Node node);
  // Hides what lower layers have below `path`, and `itself`.
  void Hide(const std::string& path, bool itself);

  // A name that is hidden again stays counted.
  Status Spend(const std::string& path) { return memory_.Spend(2 * path.size() + kNodeBytes); }

  NameMemory memory_;
  Nodes nodes_;
  uint32_t layers_ = 0;
  uint64_t ordinal_ = 0;
  std::vector<std::string> whiteouts_, opaque_;  // paths of the current layer, which take effect at its end
  // What Resolve gave last: members come by directory.
  std::string last_path_, last_resolved_;
  bool last_known_ = false;
};

}  // namespace mirage

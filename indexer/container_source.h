// A container image as an import source: its layers, or the lowest of them, as one tree. Each layer is read twice: once
// for its names and its digests, and once for the files that are left of it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "indexer/container_files.h"
#include "indexer/container_image.h"
#include "indexer/image_source.h"
#include "indexer/layer_tree.h"
#include "store/tree_reader.h"

namespace mirage {

// An image and what is known so far of its layers; shared by the sources of one import, a layer more each.
struct ContainerState {
  explicit ContainerState(uint64_t name_bytes) : tree(name_bytes) {}
  std::unique_ptr<ContainerFiles> files;
  ContainerImage image;
  LayerTree tree;
  std::vector<LayerFile> below;  // the tree's files before its last layer, if a lower version is given
};

class ContainerSource final : public ImageSource {
 public:
  // The version that was made of all layers but the last of `layers`: what it has is taken from it.
  struct Lower {
    std::shared_ptr<const Library> library;
    Entry root;
  };
  // The tree of the lowest `layers` of the image's.
  ContainerSource(std::shared_ptr<ContainerState> state, size_t layers, std::optional<Lower> lower,
                  const std::atomic<bool>* interrupted)
      : state_(std::move(state)), layers_(layers), lower_(std::move(lower)), interrupted_(interrupted) {}
  // EIO: damaged, or a layer has another digest than it should. EINVAL: a tree that cannot be.
  Result<SourceDescription> Read(ImportSink& sink) override;

 private:
  Status ReadLayer(const ContainerLayer& layer, const std::function<Status(TarStream&, TarMember&)>& take) const;
  Result<bool> TakeFromLower(const LayerFile& file, const LayerFile* before, ImportSink& sink) const;

  const std::shared_ptr<ContainerState> state_;
  const size_t layers_;
  const std::optional<Lower> lower_;
  const std::atomic<bool>* const interrupted_;
};

}  // namespace mirage

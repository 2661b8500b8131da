// A tar archive as an import source, from a file or standard input, compressed or not, read once from its beginning to
// its end. As tar(1) would unpack it into an empty directory: of a name that comes twice the last one holds,
// directories that are not named are made (0755, root, time 0). A name that leads out of the tree is an error.
#pragma once

#include <atomic>
#include <string>

#include "indexer/image_source.h"
#include "indexer/tar_stream.h"

namespace mirage {

class TarSource final : public ImageSource {
 public:
  TarSource(std::string path, uint64_t name_bytes, const std::atomic<bool>* interrupted)
      : path_(std::move(path)), name_bytes_(name_bytes), interrupted_(interrupted) {}
  // EIO: no tar archive, damaged, or cut off. EINVAL: a tree that cannot be, or that only an unpacked copy could tell. E2BIG:
  // it grows too much (byte_stream.h), or has too many names (name_memory.h).
  Result<SourceDescription> Read(ImportSink& sink) override;

 private:
  class Unpacking;
  const std::string path_;
  const uint64_t name_bytes_;
  const std::atomic<bool>* const interrupted_;
};

// Gives the stream's current member, anything but a hard link, and its data to the sink under `path`.
Status AddTarMember(TarStream& stream, TarMember& member, std::string path, ImportSink& sink);

// Whether a file is a tar archive, or is compressed as one may be, by its first bytes.
bool LooksLikeTar(std::string_view head);

}  // namespace mirage

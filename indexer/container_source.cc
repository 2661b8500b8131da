#include "indexer/container_source.h"

#include <algorithm>

#include "indexer/byte_stream.h"
#include "indexer/layer_history.h"
#include "indexer/system_files.h"
#include "indexer/tar_source.h"
#include "store/object_id.h"

namespace mirage {
namespace {

constexpr size_t kReadBytes = 64 << 10;

bool Before(const LayerFile& a, const LayerFile& b) {
  return a.layer != b.layer ? a.layer < b.layer : a.ordinal < b.ordinal;
}

}  // namespace

// All of it, checked against both digests at the end.
Status ContainerSource::ReadLayer(const ContainerLayer& layer,
                                  const std::function<Status(TarStream&, TarMember&)>& take) const {
  Sha256 packed, unpacked;
  uint64_t at = 0;
  const auto read_packed = [&](char* out, size_t size) -> Result<size_t> {
    if (interrupted_ != nullptr && interrupted_->load()) return Fail(EINTR, "interrupted; the library is as it was");
    ASSIGN_OR_RETURN(const size_t n, layer.bytes.ReadAt(at, out, size));
    packed.Update({out, n});
    at += n;
    return n;
  };
  std::string rest(kReadBytes, '\0');
  const auto run = [&]() -> Status {
    ASSIGN_OR_RETURN(const auto bytes, ByteStream::Open(read_packed, interrupted_));
    const auto read_unpacked = [&](char* out, size_t size) -> Result<size_t> {
      if (interrupted_ != nullptr && interrupted_->load()) return Fail(EINTR, "interrupted; the library is as it was");
      ASSIGN_OR_RETURN(const size_t n, bytes->Read(out, size));
      unpacked.Update({out, n});
      return n;
    };
    TarStream stream(read_unpacked);
    stream.AllowMissingEnd();
    for (;;) {
      ASSIGN_OR_RETURN(auto member, stream.Next());
      if (!member) break;
      TRY(take(stream, *member));
    }
    for (;;) {
      ASSIGN_OR_RETURN(const size_t n, read_unpacked(rest.data(), rest.size()));
      if (n == 0) break;
    }
    while (at < layer.bytes.size()) {
      if (auto n = read_packed(rest.data(), rest.size()); !n) return tl::make_unexpected(std::move(n).error());
    }
    return {};
  };
  if (Status status = run(); !status) {
    if (status.error().code == EINTR) return status;
    return Annotate(std::move(status).error(), "layer " + layer.name);
  }
  const std::string digest = packed.Finish().Hex(), diff_id = unpacked.Finish().Hex();
  if (!layer.digest.empty() && digest != layer.digest) {
    return Fail(EIO, "layer {} is damaged: its bytes have the digest sha256:{}", layer.name, digest);
  }
  if (diff_id != layer.diff_id) {
    return Fail(EIO, "layer {} is damaged: uncompressed its digest is sha256:{}, and sha256:{} in the configuration",
                layer.name, diff_id, layer.diff_id);
  }
  return {};
}

// A file of a lower layer, as the version of all lower layers has it.
Result<bool> ContainerSource::TakeFromLower(const LayerFile& file, const LayerFile* before, ImportSink& sink) const {
  if (before == nullptr) return false;
  const TreeReader reader(lower_->library);
  for (const std::string& path : before->paths) {
    auto entry = reader.Find(lower_->root, path);
    if (!entry && (entry.error().code == ENOENT || entry.error().code == ENOTDIR)) continue;  // left out on request
    if (!entry) return tl::make_unexpected(std::move(entry).error());
    if (IsSystemFile(file.paths.front()) && entry->type == FileType::kRegular) {
      // What describes the system is looked at once more.
      ASSIGN_OR_RETURN(const XattrSet xattrs, reader.Xattrs(*entry));
      Entry plain = *entry;
      plain.id = plain.xattrs = {};
      plain.size = 0;
      TRY(sink.BeginFile(file.paths.front(), std::move(plain), xattrs));
      std::string bytes;
      for (uint64_t at = 0; at < entry->size; at += bytes.size()) {
        TRY(reader.Read(*entry, at, kWholeFileBytes, &bytes));
        if (bytes.empty()) return Fail(EIO, "/{} ends too soon", path);
        TRY(sink.AppendFile(bytes));
      }
      TRY(sink.EndFile());
    } else {
      TRY(sink.AddStored(file.paths.front(), std::move(*entry)));
    }
    for (size_t i = 1; i < file.paths.size(); ++i) TRY(sink.AddLink(file.paths[i], file.paths.front()));
    return true;
  }
  return false;
}

Result<SourceDescription> ContainerSource::Read(ImportSink& sink) {
  ContainerImage& image = state_->image;
  LayerTree& tree = state_->tree;
  sink.Stage("reading the layers' names");
  while (tree.layers() < layers_) {
    if (lower_) state_->below = tree.Files();
    const ContainerLayer& layer = image.layers[tree.layers()];
    tree.Begin();
    TRY(ReadLayer(layer, [&](TarStream&, TarMember& member) { return tree.Take(member); }));
    TRY(tree.End());
  }
  sink.Stage("reading the layers");
  for (std::string& path : tree.MadeDirectories()) {
    Entry made;
    made.type = FileType::kDirectory;
    made.mode = 0755;
    TRY(sink.Add(std::move(path), std::move(made), {}, ""));
  }
  const std::vector<LayerFile> files = tree.Files();
  std::vector<const LayerFile*> wanted;
  for (const LayerFile& file : files) {
    bool taken = false;
    if (lower_ && file.layer + 1 < layers_) {
      const auto before = std::lower_bound(state_->below.begin(), state_->below.end(), file, Before);
      const bool found = before != state_->below.end() && !Before(file, *before);
      ASSIGN_OR_RETURN(taken, TakeFromLower(file, found ? &*before : nullptr, sink));
    }
    if (!taken) wanted.push_back(&file);
  }
  uint64_t text_acls = 0;
  for (auto next = wanted.begin(); next != wanted.end();) {
    const uint32_t number = (*next)->layer;
    uint64_t ordinal = 0;
    const auto take = [&](TarStream& stream, TarMember& member) -> Status {
      const uint64_t own = ordinal++;
      if (next == wanted.end() || (*next)->layer != number || (*next)->ordinal != own) return {};
      const LayerFile& file = **next++;
      if (member.hard_link) return Fail(EIO, "it changes while it is read");
      if (member.text_acl) ++text_acls;
      TRY(AddTarMember(stream, member, file.paths.front(), sink));
      for (size_t i = 1; i < file.paths.size(); ++i) TRY(sink.AddLink(file.paths[i], file.paths.front()));
      return {};
    };
    TRY(ReadLayer(image.layers[number], take));
    if (next != wanted.end() && (*next)->layer == number) return Fail(EIO, "a layer changes while it is read");
  }
  if (text_acls > 0) sink.Omit(fmt::format("POSIX ACLs of {} files, which the layers have as text", text_acls));
  SourceDescription description;
  description.os = image.os;
  description.arch = image.arch;
  description.container = image.config;
  description.layers = LayerChains(image.layers)[layers_ - 1];
  return description;
}

}  // namespace mirage

#include "indexer/tar_source.h"

#include <xxhash.h>

#include <algorithm>
#include <random>
#include <unordered_map>
#include <utility>

#include "indexer/byte_stream.h"
#include "indexer/name_memory.h"
#include "indexer/tar_stream.h"

namespace mirage {
namespace {

constexpr size_t kPieceBytes = 1 << 20;
constexpr size_t kMagicOffset = 257;
constexpr size_t kNameBytes = 64, kLinkBytes = 128;  // in memory: of a name, of a hard link beside its two names

std::string_view ParentOf(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? std::string_view{} : path.substr(0, slash);
}

}  // namespace

Status AddTarMember(TarStream& stream, TarMember& member, std::string path, ImportSink& sink) {
  if (member.entry.type != FileType::kRegular) {
    return sink.Add(std::move(path), std::move(member.entry), member.xattrs, std::move(member.target));
  }
  if (!member.sparse && member.size <= kWholeFileBytes) {
    ASSIGN_OR_RETURN(std::string bytes, stream.ReadData(static_cast<size_t>(member.size)));
    return sink.AddFile(std::move(path), std::move(member.entry), member.xattrs, std::move(bytes));
  }
  TRY(sink.BeginFile(std::move(path), std::move(member.entry), member.xattrs));
  if (!member.sparse) member.pieces = {{0, member.size}};
  uint64_t at = 0;
  for (const TarPiece& piece : member.pieces) {
    TRY(sink.AppendHole(piece.offset - at));
    for (uint64_t left = piece.length; left > 0;) {
      ASSIGN_OR_RETURN(const std::string bytes,
                       stream.ReadData(static_cast<size_t>(std::min<uint64_t>(left, kPieceBytes))));
      TRY(sink.AppendFile(bytes));
      left -= bytes.size();
    }
    at = piece.offset + piece.length;
  }
  TRY(sink.AppendHole(member.size - at));
  return sink.EndFile();
}

bool LooksLikeTar(std::string_view head) {
  using namespace std::string_view_literals;
  if (head.size() > kMagicOffset + 5 && head.substr(kMagicOffset, 5) == "ustar") return true;
  for (const std::string_view magic : {"\x1f\x8b"sv, "BZh"sv,
                                       "\xfd"
                                       "7zXZ\0"sv,
                                       "\x28\xb5\x2f\xfd"sv}) {
    if (head.starts_with(magic)) return true;
  }
  return false;
}

class TarSource::Unpacking {
 public:
  Unpacking(TarStream& stream, ImportSink& sink, uint64_t name_bytes)
      : stream_(stream), sink_(sink), memory_(name_bytes) {}

  Status Run() {
    TRY(AddDirectory("", {}, {}));
    for (;;) {
      ASSIGN_OR_RETURN(auto next, stream_.Next());
      if (!next) break;
      TRY(Take(*next));
    }
    if (members_ == 0) return Fail(EINVAL, "the archive holds no files");
    if (text_acls_ > 0) sink_.Omit(fmt::format("POSIX ACLs of {} files, which the archive has as text", text_acls_));
    return {};
  }

 private:
  enum class Kind : uint8_t { kDirectory, kOther, kLinked, kLink };  // kLinked: hard links to it came
  // A name is known by 128 bits of it, whatever its length; with a seed of our own, or an archive could be made in which
  // two names are one.
  struct Name {
    uint64_t low, high;
    bool operator==(const Name&) const = default;
  };
  struct NameHash {
    size_t operator()(const Name& name) const { return name.low; }
  };
  Name NameOf(std::string_view path) const {
    const XXH128_hash_t hash = XXH3_128bits_withSeed(path.data(), path.size(), seed_);
    return {hash.low64, hash.high64};
  }
  Status SetKind(std::string_view path, Kind kind) {
    const auto [known, is_new] = kinds_.insert_or_assign(NameOf(path), kind);
    return is_new ? memory_.Spend(kNameBytes) : Status{};
  }

  // The directory itself and those above it that did not come.
  Status AddDirectory(std::string path, Entry entry, const XattrSet& xattrs) {
    if (entry.type != FileType::kDirectory) {
      entry.type = FileType::kDirectory;
      entry.mode = 0755;
    }
    TRY(SetKind(path, Kind::kDirectory));
    return sink_.Add(std::move(path), std::move(entry), xattrs, "");
  }
  Status AddParents(std::string_view path) {
    if (path.empty()) return {};
    const std::string parent(ParentOf(path));
    const auto known = kinds_.find(NameOf(parent));
    if (known != kinds_.end()) {
      if (known->second == Kind::kDirectory) return {};
      return Fail(EINVAL, "/{} is below /{}, which is no directory in the archive", path, parent);
    }
    TRY(AddParents(parent));
    return AddDirectory(parent, {}, {});
  }

  Status Take(TarMember& member) {
    ++members_;
    if (member.path.empty() && (member.hard_link || !member.entry.is_directory())) {
      return Fail(EIO, "the archive is damaged: a member without a name");
    }
    if (member.hard_link && FirstOf(member.target) == member.path) return {};  // itself, by way of another link
    TRY(AddParents(member.path));
    const auto known = kinds_.find(NameOf(member.path));
    const bool directory = !member.hard_link && member.entry.is_directory();
    if (known != kinds_.end()) {
      if ((known->second == Kind::kDirectory) != directory) {
        return Fail(EINVAL, "/{} comes twice, once as a directory and once not", member.path);
      }
      // What links to the first of both would be given the second.
      if (known->second == Kind::kLink || known->second == Kind::kLinked) {
        return Fail(EINVAL, "/{} comes twice and has hard links; unpack the archive and import the directory",
                    member.path);
      }
    }
    if (directory) return AddDirectory(std::move(member.path), std::move(member.entry), member.xattrs);
    if (member.hard_link) return TakeLink(member);
    TRY(SetKind(member.path, Kind::kOther));
    if (member.text_acl) ++text_acls_;
    std::string path = member.path;
    return AddTarMember(stream_, member, std::move(path), sink_);
  }

  // What a name means: a link to a link is one to what that one links to.
  const std::string& FirstOf(const std::string& path) const {
    const auto through = firsts_.find(path);
    return through == firsts_.end() ? path : through->second;
  }
  Status TakeLink(TarMember& member) {
    std::string first = FirstOf(member.target);
    const auto target = kinds_.find(NameOf(first));
    if (target == kinds_.end() || target->second == Kind::kDirectory) {
      return Fail(EINVAL, "/{} is a hard link to /{}, which does not come before it", member.path, member.target);
    }
    target->second = Kind::kLinked;
    TRY(SetKind(member.path, Kind::kLink));
    TRY(memory_.Spend(kLinkBytes + member.path.size() + first.size()));
    firsts_[member.path] = first;
    return sink_.AddLink(std::move(member.path), std::move(first));
  }

  TarStream& stream_;
  ImportSink& sink_;
  NameMemory memory_;
  const uint64_t seed_ = std::random_device()() | uint64_t{std::random_device()()} << 32;
  std::unordered_map<Name, Kind, NameHash> kinds_;       // of all names so far
  std::unordered_map<std::string, std::string> firsts_;  // of hard links: what they link to
  uint64_t members_ = 0, text_acls_ = 0;
};

Result<SourceDescription> TarSource::Read(ImportSink& sink) {
  sink.Stage("reading the archive");
  ASSIGN_OR_RETURN(const auto bytes, ByteStream::Open(path_, interrupted_));
  TarStream stream([&](char* out, size_t size) -> Result<size_t> {
    if (interrupted_ != nullptr && interrupted_->load()) return Fail(EINTR, "interrupted; the library is as it was");
    return bytes->Read(out, size);
  });
  TRY(Unpacking(stream, sink, name_bytes_).Run());
  // A damaged end of a compressed archive shows only when it is read to its end.
  std::string rest(64 << 10, '\0');
  for (;;) {
    ASSIGN_OR_RETURN(const size_t n, bytes->Read(rest.data(), rest.size()));
    if (n == 0) break;
  }
  return SourceDescription{};
}

}  // namespace mirage

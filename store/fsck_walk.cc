#include "store/fsck_walk.h"

#include <utility>

#include "store/encoding.h"
#include "store/fsck.h"

namespace mirage {
namespace {

constexpr size_t kBatch = 1024;         // entries of a directory looked at at once
constexpr size_t kReadBytes = 1 << 20;  // of a content
constexpr uint64_t kMostLackingTold = 20;

struct Frame {
  std::string path;
  Entry entry;
  uint64_t position = 0;                                   // of the next entry to look at
  std::vector<std::pair<std::string, Entry>> directories;  // of the last batch, to be walked
  bool ended = false;
  bool sound = true;
  uint64_t subdirectories = 0;  // seen so far, directly in it
};

bool HasContent(const Entry& entry) {
  return entry.size > 0 &&
         (entry.type == FileType::kRegular || (entry.type == FileType::kSymlink && entry.size > kInlineSymlinkBytes));
}

// A content with the size that an entry gives it.
ObjectId ContentKey(const ObjectId& content, uint64_t size) {
  std::string bytes(content.view());
  Put<uint64_t>(&bytes, size);
  return HashBytes(bytes);
}

template <typename T>
void PutBigEndian(char* out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) out[i] = static_cast<char>(value >> (8 * (sizeof(T) - 1 - i)));
}
template <typename T>
T TakeBigEndian(std::string_view bytes) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value = static_cast<T>(value << 8 | static_cast<uint8_t>(bytes[i]));
  return value;
}

// A key that sorts by the place of the content's first chunk: pack, offset, row, then something to tell contents apart.
ObjectId PlaceKey(const Location& place, const ObjectId& content_key) {
  ObjectId key = content_key;
  char* out = reinterpret_cast<char*>(key.bytes.data());
  PutBigEndian(out, place.pack);
  PutBigEndian(out + 8, place.offset);
  PutBigEndian(out + 12, place.slot);
  return key;
}

}  // namespace

Result<std::string> CheckedIndex::ReadObject(ObjectKind kind, const ObjectId& id) const {
  ASSIGN_OR_RETURN(auto packed, packed_.Get(kind, id));
  if (packed && !compare_) return std::move(*packed);
  Result<std::optional<std::string>> live = std::optional<std::string>();
  if (live_) live = live_->Get(kind, id);
  if (packed) {
    lacking_ |= !live || !*live;
    return std::move(*packed);
  }
  if (live && *live && (kind == ObjectKind::kContent || HashBytes(**live) == id)) return std::move(**live);
  return Fail(ENOENT, "object {} of kind '{}' is missing", id.Hex(), static_cast<char>(kind));
}

Result<std::optional<Location>> CheckedIndex::FindChunk(const ObjectId& id) const {
  ASSIGN_OR_RETURN(const auto value, packed_.Get(ObjectKind::kChunk, id));
  if (!value) return std::optional<Location>();
  if (compare_) {
    const auto live = live_->Get(ObjectKind::kChunk, id);
    lacking_ |= !live || !*live;
  }
  ASSIGN_OR_RETURN(const Location location, DecodeLocation(*value));
  return std::optional<Location>(location);
}

struct FsckWalk::Impl {
  Impl(Env& e, const std::string& scratch, const CheckedIndex& i, const ChunkStore& chunks, Found f)
      : env(e),
        index(i),
        contents(i, chunks),
        trees(i, ObjectKind::kTree, 16 << 20),
        links(i, ObjectKind::kLinks, 2 << 20),
        found(std::move(f)),
        sound(env, Directory(scratch + "/sound"), kFsckRunsBytes),
        clean(env, Directory(scratch + "/clean"), kFsckRunsBytes),
        places(env, Directory(scratch + "/places"), kFsckRunsBytes),
        bad(env, Directory(scratch + "/bad"), kFsckRunsBytes) {}

  Env& env;
  const CheckedIndex& index;
  ContentReader contents;
  MapReader trees, links;
  Found found;
  SortedRuns sound;   // subtrees, links maps and xattr sets in order, by kind and id
  SortedRuns clean;   // subtrees without a bad content
  SortedRuns places;  // contents by the place of their first chunk -> id, size
  SortedRuns bad;     // contents that are not as they should be, by ContentKey -> why
  bool lacking = false;
  uint64_t lacking_told = 0;

  const std::string& Directory(const std::string& path) const {
    static_cast<void>(env.MakeDirectory(path, 0700));  // what does not exist fails when it is written to
    return path;
  }
  void TellLacking(const std::string& version, const std::string& path) {
    if (!index.TakeLacking()) return;
    lacking = true;
    if (++lacking_told > kMostLackingTold) return;
    found(lacking_told < kMostLackingTold ? "db: lacks objects of it that the packs hold"
                                          : "db: lacks objects of it that the packs hold; more of this is not told",
          version, path);
  }

  enum Mode { kStructure, kBadContents };
  Status Walk(Mode mode, const std::string& version, const Entry& root);
  // Looks at the next entries of a directory.
  Status Batch(Mode mode, const std::string& version, Frame* frame);
  Result<bool> CheckXattrs(const std::string& version, const std::string& path, const Entry& entry);
  Result<bool> CheckLeaf(Mode mode, const std::string& version, const std::string& path, const Entry& entry);
  Status CheckLinks(const std::string& version, const Manifest& manifest);
  Result<std::optional<Entry>> Find(const Entry& root, std::string_view path) const;
  Result<Location> FirstPlace(const ObjectId& content) const;
  Status CheckContent(const ObjectId& content, uint64_t size) const;
};

Status FsckWalk::Impl::Walk(Mode mode, const std::string& version, const Entry& root) {
  SortedRuns& done = mode == kStructure ? sound : clean;
  std::vector<Frame> frames;
  // Returns whether the subtree is in order by an earlier walk; else it is put on the stack.
  const auto enter = [&](std::string path, const Entry& entry) -> Result<bool> {
    bool in_order = true;
    if (mode == kStructure) {
      ASSIGN_OR_RETURN(in_order, CheckXattrs(version, path, entry));
    }
    ASSIGN_OR_RETURN(const auto before, done.Get(ObjectKind::kTree, entry.id));
    if (before) {
      if (mode == kStructure && LoadAt<uint64_t>(*before, 0) != entry.size) {
        found(fmt::format("directory says {} subdirectories and has {}", entry.size, LoadAt<uint64_t>(*before, 0)),
              version, path);
        return false;
      }
      return in_order;
    }
    frames.emplace_back();
    frames.back().path = std::move(path);
    frames.back().entry = entry;
    frames.back().sound = in_order;
    return true;  // its frame will tell
  };
  ASSIGN_OR_RETURN([[maybe_unused]] const bool root_in_order, enter("", root));
  while (!frames.empty()) {
    Frame& frame = frames.back();
    if (!frame.directories.empty()) {
      const auto [name, entry] = std::move(frame.directories.back());
      frame.directories.pop_back();
      const size_t depth = frames.size();
      ASSIGN_OR_RETURN(const bool in_order, enter(frame.path + "/" + name, entry));
      frames[depth - 1].sound &= in_order;
      continue;
    }
    if (!frame.ended) {
      TRY(Batch(mode, version, &frame));
      continue;
    }
    if (mode == kStructure && frame.sound && frame.subdirectories != frame.entry.size) {
      found(fmt::format("directory says {} subdirectories and has {}", frame.entry.size, frame.subdirectories), version,
            frame.path.empty() ? "/" : frame.path);
      frame.sound = false;
    }
    const bool in_order = frame.sound;
    if (in_order) {
      std::string value;  // for other entries that name the same directory
      Put<uint64_t>(&value, frame.subdirectories);
      TRY(done.Put(ObjectKind::kTree, frame.entry.id, std::move(value)));
    }
    frames.pop_back();
    if (!frames.empty()) frames.back().sound &= in_order;
  }
  return {};
}

Status FsckWalk::Impl::Batch(Mode mode, const std::string& version, Frame* frame) {
  std::vector<std::pair<std::string, Entry>> others;
  size_t count = 0;
  Status undecoded;
  const auto scanned =
      trees.ScanFrom(frame->entry.id, frame->position, [&](std::string_view name, std::string_view value) {
        auto entry = DecodeEntry(value);
        if (!entry) {
          undecoded = Annotate(std::move(entry).error(), fmt::format("\"{}\"", name));
          return false;
        }
        (entry->is_directory() ? frame->directories : others).emplace_back(name, std::move(*entry));
        return ++count < kBatch;
      });
  const std::string shown = frame->path.empty() ? "/" : frame->path;
  const Status& status = scanned ? undecoded : scanned;
  if (!status) {
    // What kStructure found is not told again.
    if (mode == kStructure) found(status.error().message, version, shown);
    frame->sound = false;
    frame->ended = true;
  }
  if (mode == kStructure) TellLacking(version, shown);
  frame->position += count;
  frame->ended |= count < kBatch;
  frame->subdirectories += frame->directories.size();
  for (const auto& [name, entry] : others) {
    ASSIGN_OR_RETURN(const bool in_order, CheckLeaf(mode, version, frame->path + "/" + name, entry));
    frame->sound &= in_order;
  }
  return {};
}

Result<bool> FsckWalk::Impl::CheckXattrs(const std::string& version, const std::string& path, const Entry& entry) {
  if (entry.xattrs.IsZero()) return true;
  ASSIGN_OR_RETURN(const auto before, sound.Get(ObjectKind::kXattrs, entry.xattrs));
  if (before) return true;
  const auto xattrs = ReadXattrs(index, entry.xattrs);
  if (!xattrs) {
    found(xattrs.error().message, version, path.empty() ? "/" : path);
    return false;
  }
  TellLacking(version, path);
  TRY(sound.Put(ObjectKind::kXattrs, entry.xattrs, "-"));
  return true;
}

Result<bool> FsckWalk::Impl::CheckLeaf(Mode mode, const std::string& version, const std::string& path,
                                       const Entry& entry) {
  if (mode == kStructure) {
    ASSIGN_OR_RETURN(const bool in_order, CheckXattrs(version, path, entry));
    if (!HasContent(entry)) return in_order;
    std::string value(entry.id.view());
    Put<uint64_t>(&value, entry.size);
    // What has no place is found when it is read.
    const Location place = FirstPlace(entry.id).value_or(Location{});
    lacking |= index.TakeLacking();  // told when the content is read
    TRY(places.Put(ObjectKind::kChunk, PlaceKey(place, ContentKey(entry.id, entry.size)), std::move(value)));
    return in_order;
  }
  if (!HasContent(entry)) return true;
  ASSIGN_OR_RETURN(const auto why, bad.Get(ObjectKind::kContent, ContentKey(entry.id, entry.size)));
  if (why) found(*why, version, path);
  return !why;
}

// Where the content's first chunk lies: only to put contents into an order that reads well.
Result<Location> FsckWalk::Impl::FirstPlace(const ObjectId& content) const {
  ObjectId id = content;
  ObjectKind kind = ObjectKind::kContent;
  while (true) {
    const auto encoding = index.ReadObject(kind, id);
    if (!encoding) break;
    ASSIGN_OR_RETURN(const ContentNode node, DecodeContentNode(*encoding));
    const bool hole_first = node.segments.front().id.IsZero() && node.segments.size() > 1;
    id = node.segments[hole_first ? 1 : 0].id;
    if (node.level == 0) break;
    if (kind == ObjectKind::kContentNode && node.level > 15) break;
    kind = ObjectKind::kContentNode;
  }
  ASSIGN_OR_RETURN(const auto place, index.FindChunk(id));
  if (!place) return Fail(ENOENT, "chunk {}: missing", id.Hex());
  return *place;
}

Status FsckWalk::Impl::CheckContent(const ObjectId& content, uint64_t size) const {
  std::string piece;
  // One that is a single chunk was hashed with its pack; reading a byte shows that it is there, and its length.
  const auto list = index.ReadObject(ObjectKind::kContent, content);
  if (!list && list.error().code == ENOENT) return contents.Read(content, size, 0, 1, &piece);
  Sha256 hash;
  for (uint64_t at = 0; at < size; at += piece.size()) {
    piece.clear();
    TRY(contents.Read(content, size, at, static_cast<size_t>(std::min<uint64_t>(kReadBytes, size - at)), &piece));
    if (piece.empty()) return Fail(EIO, "content {}: ends at {} of {} bytes", content.Hex(), at, size);
    hash.Update(piece);
  }
  if (hash.Finish() != content) return Fail(EIO, "content {}: its bytes do not hash to it", content.Hex());
  return {};
}

Result<std::optional<Entry>> FsckWalk::Impl::Find(const Entry& root, std::string_view path) const {
  Entry entry = root;
  while (!path.empty()) {
    const std::string_view name = path.substr(0, path.find('/'));
    path.remove_prefix(std::min(path.size(), name.size() + 1));
    if (!entry.is_directory()) return std::optional<Entry>();
    ASSIGN_OR_RETURN(const auto value, trees.Find(entry.id, name));
    if (!value) return std::optional<Entry>();
    ASSIGN_OR_RETURN(entry, DecodeEntry(*value));
  }
  return std::optional<Entry>(std::move(entry));
}

Status FsckWalk::Impl::CheckLinks(const std::string& version, const Manifest& manifest) {
  if (manifest.links.IsZero()) return {};
  // The same links over another tree are another matter.
  const ObjectId key = HashBytes(std::string(manifest.links.view()) + std::string(manifest.root.id.view()));
  ASSIGN_OR_RETURN(const auto before, sound.Get(ObjectKind::kLinks, key));
  if (before) return {};
  bool in_order = true;
  const auto status = links.Scan(manifest.links, "", [&](std::string_view path, std::string_view first) {
    for (const std::string_view side : {path, first}) {
      const auto entry = Find(manifest.root, side);
      if (entry && *entry) continue;
      in_order = false;
      found(entry ? "links: no such file" : fmt::format("links: {}", entry.error().message), version,
            "/" + std::string(side));
    }
    return true;
  });
  if (!status) found(fmt::format("links: {}", status.error().message), version, "");
  TellLacking(version, "");
  if (status && in_order) TRY(sound.Put(ObjectKind::kLinks, key, "-"));
  return {};
}

FsckWalk::FsckWalk(Env& env, const std::string& scratch, const CheckedIndex& index, const ChunkStore& chunks,
                   Found found)
    : impl_(std::make_unique<Impl>(env, scratch, index, chunks, std::move(found))) {}
FsckWalk::~FsckWalk() = default;

bool FsckWalk::found_bad_contents() const { return !impl_->bad.empty(); }
bool FsckWalk::found_lacking() const { return impl_->lacking; }

Status FsckWalk::CheckStructure(const std::string& version, const Manifest& manifest) {
  TRY(impl_->Walk(Impl::kStructure, version, manifest.root));
  if (!manifest.inspection.IsZero()) {
    const auto bytes = impl_->index.ReadObject(ObjectKind::kInspection, manifest.inspection);
    if (!bytes) impl_->found(bytes.error().message, version, "");
    impl_->TellLacking(version, "");
  }
  return impl_->CheckLinks(version, manifest);
}

Result<uint64_t> FsckWalk::CheckContents(const std::function<void(PackNumber, uint64_t)>& at) {
  uint64_t count = 0;
  static_cast<void>(impl_->index.TakeLacking());
  TRY(impl_->places.Visit([&](std::string_view key, std::string_view value) -> Status {
    ++count;
    const std::string_view place = key.substr(1);
    at(TakeBigEndian<uint64_t>(place), TakeBigEndian<uint32_t>(place.substr(8)));
    const ObjectId content = *ObjectId::FromBytes(value.substr(0, ObjectId::kSize));
    const auto size = LoadAt<uint64_t>(value, ObjectId::kSize);
    std::string why;
    if (const Status status = impl_->CheckContent(content, size); !status) {
      why = status.error().message;
    } else if (impl_->index.TakeLacking()) {
      impl_->lacking = true;
      why = fmt::format("db: lacks pieces of content {} that the packs hold", content.Hex());
    }
    if (why.empty()) return {};
    return impl_->bad.Put(ObjectKind::kContent, ContentKey(content, size), std::move(why));
  }));
  return count;
}

Status FsckWalk::ReportBadContents(const std::string& version, const Manifest& manifest) {
  return impl_->Walk(Impl::kBadContents, version, manifest.root);
}

}  // namespace mirage

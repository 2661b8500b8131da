#include "store/fsck.h"

#include <set>
#include <unordered_map>
#include <unordered_set>

#include "store/library_impl.h"
#include "store/tree_reader.h"

namespace mirage {
namespace {

constexpr uint64_t kReadBytes = 1 << 20;

using IdSet = std::unordered_set<ObjectId, ObjectIdHash>;

// One pass over the packs finds every chunk's place, then a walk from the refs names what hangs on each object.
class Checker {
 public:
  Checker(Library& library, const std::function<void(const FsckFinding&)>& finding,
          const std::function<void(uint64_t, uint64_t)>& progress)
      : library_(library), snapshot_(library.snapshot()), finding_(finding), progress_(progress) {}

  Result<FsckReport> Run() {
    TRY(CheckLog());
    TRY(CheckPacks());
    TRY(CheckDatabase());
    TRY(CheckVersions());
    return report_;
  }

 private:
  void Found(std::string what, std::string version = {}, std::string path = {}) {
    ++report_.damaged;
    finding_({std::move(what), std::move(version), std::move(path)});
  }

  Status CheckLog() {
    const RefLog log(library_.env(), library_.path() + "/refs.log");
    std::map<std::string, std::optional<Ref>> refs;
    std::map<std::string, uint64_t> highest;
    const auto end = log.Replay({}, [&](const RefRecord& record) -> Status {
      ++report_.records;
      for (const RefMove& move : record.moves) {
        const auto it = refs.find(move.name);
        const ObjectId before = it != refs.end() && it->second ? it->second->manifest : ObjectId();
        if (before != move.from) Found(fmt::format("refs.log: record {}: {} was not where it says", record.sequence, move.name));
      }
      Library::Impl::Apply(record, &refs, &highest);
      return {};
    });
    if (!end) {
      Found(end.error().message);
      return {};
    }
    for (const auto& [name, ref] : refs) {
      ASSIGN_OR_RETURN(const auto seen, snapshot_->Branch(name));
      const ObjectId in_log = ref ? ref->manifest : ObjectId(), in_db = seen ? seen->manifest : ObjectId();
      // A ref moved since the snapshot was taken is no damage.
      if (in_log != in_db && end->sequence == snapshot_->sequence()) {
        Found(fmt::format("db: {} stands at {}, refs.log says {}", name, in_db.Hex(), in_log.Hex()));
      }
    }
    return {};
  }

  Status CheckPacks() {
    ASSIGN_OR_RETURN(const auto names, library_.env().List(library_.packs_path()));
    uint64_t total = 0, done = 0;
    std::vector<std::pair<PackNumber, uint64_t>> packs;
    // Condemned packs are nobody's, and may go while this runs.
    ASSIGN_OR_RETURN(const auto condemned, snapshot_->database().Condemned());
    for (const std::string& name : names) {
      const auto number = ParsePackFileName(name);
      if (!number) {
        Found(fmt::format("packs/{}: not a pack's name", name));
        continue;
      }
      if (condemned.contains(*number)) continue;
      ASSIGN_OR_RETURN(const FileInfo info, library_.env().Stat(library_.packs_path() + "/" + name));
      packs.emplace_back(*number, info.size_bytes);
      total += info.size_bytes;
    }
    for (const auto& [number, size] : packs) {
      ++report_.packs;
      const std::string name = PackFileName(number);
      const auto status = ScanPack(
          library_.env(), library_.packs_path() + "/" + name, number, library_.format().uuid,
          [&](const Location& location, const Block& block) -> Status {
            ++report_.blocks;
            for (size_t slot = 0; slot < block.rows().size(); ++slot) CheckRow(name, location, block, slot);
            if (progress_) progress_(done + location.offset, total);
            return {};
          });
      if (!status) Found(fmt::format("packs/{}: {}", name, status.error().message));
      done += size;
      if (progress_) progress_(done, total);
    }
    return {};
  }

  void CheckRow(const std::string& pack, Location location, const Block& block, size_t slot) {
    const BlockRow& row = block.rows()[slot];
    location.slot = static_cast<uint16_t>(slot);
    // A content's list is proved by hashing the content, below.
    if (row.kind != ObjectKind::kContent && HashBytes(block.Bytes(slot)) != row.id) {
      Found(fmt::format("packs/{}: block at {}: row {} does not hash to {}", pack, location.offset, slot, row.id.Hex()));
      return;
    }
    if (row.kind == ObjectKind::kChunk) {
      ++report_.chunks;
      places_[row.id].push_back(location);
    } else {
      ++report_.objects;
      const auto copy = snapshot_->database().Get(row.kind, row.id);
      if (!copy) {
        Found(copy.error().message);
      } else if (*copy && row.kind != ObjectKind::kContent && **copy != block.Bytes(slot)) {
        Found(fmt::format("db: object {} differs from packs/{}", row.id.Hex(), pack));
      }
      packed_.insert(row.id);
    }
  }

  Status CheckDatabase() {
    auto status = snapshot_->database().ForEach(
        ObjectKind::kChunk, [&](const ObjectId& id, std::string_view value) -> Status {
          const auto location = DecodeLocation(value);
          const auto it = places_.find(id);
          if (!location) {
            Found(fmt::format("db: chunk {}: {}", id.Hex(), location.error().message));
          } else if (it == places_.end() || std::find(it->second.begin(), it->second.end(), *location) == it->second.end()) {
            Found(fmt::format("db: chunk {}: not in packs/{} at {}", id.Hex(), PackFileName(location->pack), location->offset));
          }
          return {};
        });
    if (!status) Found(status.error().message);
    for (const ObjectKind kind : {ObjectKind::kContent, ObjectKind::kContentNode, ObjectKind::kTree, ObjectKind::kLinks,
                                  ObjectKind::kXattrs, ObjectKind::kInspection, ObjectKind::kManifest}) {
      status = snapshot_->database().ForEach(kind, [&](const ObjectId& id, std::string_view value) -> Status {
        if (kind != ObjectKind::kContent && HashBytes(value) != id) {
          Found(fmt::format("db: object {} does not hash to its id", id.Hex()));
        }
        if (!packed_.contains(id)) Found(fmt::format("db: object {} is in no pack", id.Hex()));
        return {};
      });
      if (!status) Found(status.error().message);
    }
    return {};
  }

  Status CheckVersions() {
    // Every version that a ref or an ancestor of one names, under the first name found.
    std::map<std::string, ObjectId> named;
    ASSIGN_OR_RETURN(const auto branches, snapshot_->Branches());
    for (const auto& [branch, head] : branches) {
      named.emplace(branch, head.manifest);
      ASSIGN_OR_RETURN(const auto tags, snapshot_->Tags(branch));
      for (const auto& [tag, ref] : tags) named.emplace(branch + "/" + tag, ref.manifest);
    }
    IdSet seen;
    // Tags first: they read better in a report than a branch, or a branch and a distance.
    for (const bool tags : {true, false}) {
      for (const auto& [name, id] : named) {
        if ((name.find('/') != std::string::npos) != tags) continue;
        std::vector<std::pair<ObjectId, std::string>> due{{id, name}};
        while (!due.empty()) {
          const auto [version_id, version] = due.back();
          due.pop_back();
          if (!seen.insert(version_id).second) continue;
          const auto manifest = ReadManifest(*snapshot_, version_id);
          if (!manifest) {
            Found(manifest.error().message, version);
            continue;
          }
          ++report_.versions;
          // Of an ancestor that nothing names a collection keeps the manifest alone.
          if (!version.starts_with('@') || CheckContents(*snapshot_, version_id)) CheckVersion(version, *manifest);
          // Ancestors that have names of their own are reported under those.
          for (const ObjectId& parent : manifest->parents) due.emplace_back(parent, "@" + parent.Hex());
        }
      }
    }
    return {};
  }

  void CheckVersion(const std::string& version, const Manifest& manifest) {
    const TreeReader reader(library_.shared_from_this());
    CheckDirectory(reader, version, "", manifest.root);
    if (!manifest.inspection.IsZero()) {
      if (const auto bytes = snapshot_->ReadObject(ObjectKind::kInspection, manifest.inspection); !bytes) {
        Found(bytes.error().message, version);
      }
    }
    if (manifest.links.IsZero() || !checked_.insert(manifest.links).second) return;
    const auto status = library_.links().Scan(manifest.links, "", [&](std::string_view path, std::string_view first) {
      for (const std::string_view side : {path, first}) {
        const auto entry = reader.Find(manifest.root, side);
        if (!entry) Found(fmt::format("links: {}", entry.error().message), version, "/" + std::string(side));
      }
      return true;
    });
    if (!status) Found(status.error().message, version);
  }

  // A subtree is walked once however many versions share it; damage in it is reported for each of them.
  void CheckDirectory(const TreeReader& reader, const std::string& version, const std::string& path, const Entry& entry) {
    if (sound_trees_.contains(entry.id)) {
      CheckOwn(reader, version, path, entry);
      return;
    }
    const uint64_t before = report_.damaged;
    CheckOwn(reader, version, path, entry);
    uint64_t subdirectories = 0;
    std::vector<NamedEntry> directories;
    const auto status = reader.Scan(entry.id, 0, [&](std::string_view name, const Entry& child) {
      const std::string child_path = path + "/" + std::string(name);
      if (child.is_directory()) {
        ++subdirectories;
        directories.push_back({std::string(name), child});
      } else {
        CheckOwn(reader, version, child_path, child);
      }
      return true;
    });
    if (!status) {
      Found(status.error().message, version, path.empty() ? "/" : path);
      return;
    }
    if (subdirectories != entry.size) {
      Found(fmt::format("directory says {} subdirectories and has {}", entry.size, subdirectories), version, path);
    }
    for (const NamedEntry& child : directories) CheckDirectory(reader, version, path + "/" + child.name, child.entry);
    if (report_.damaged == before) sound_trees_.insert(entry.id);
  }

  void CheckOwn(const TreeReader& reader, const std::string& version, const std::string& path, const Entry& entry) {
    if (!entry.xattrs.IsZero() && !checked_.contains(entry.xattrs)) {
      if (const auto xattrs = reader.Xattrs(entry); xattrs) {
        checked_.insert(entry.xattrs);
      } else {
        Found(xattrs.error().message, version, path);
      }
    }
    const bool has_content = (entry.type == FileType::kRegular && entry.size > 0) ||
                             (entry.type == FileType::kSymlink && entry.target.empty() && entry.size > 0);
    if (!has_content || sound_contents_.contains(entry.id)) return;
    ++report_.contents;
    if (const auto status = CheckContent(entry.id, entry.size); status) {
      sound_contents_.insert(entry.id);
    } else {
      Found(status.error().message, version, path);
    }
  }

  Status CheckContent(const ObjectId& id, uint64_t size) {
    // A content that is one sound chunk was hashed with its pack.
    if (places_.contains(id)) {
      ASSIGN_OR_RETURN(const auto list, snapshot_->database().Get(ObjectKind::kContent, id));
      if (!list) {
        std::string first;
        return library_.contents().Read(id, size, 0, 1, &first);
      }
    }
    Sha256 hash;
    std::string piece;
    for (uint64_t at = 0; at < size; at += piece.size()) {
      piece.clear();
      TRY(library_.contents().Read(id, size, at, std::min(kReadBytes, size - at), &piece));
      if (piece.empty()) return Fail(EIO, "content {}: ends at {} of {} bytes", id.Hex(), at, size);
      hash.Update(piece);
    }
    if (hash.Finish() != id) return Fail(EIO, "content {}: its bytes do not hash to it", id.Hex());
    return {};
  }

  Library& library_;
  std::shared_ptr<const Snapshot> snapshot_;
  const std::function<void(const FsckFinding&)>& finding_;
  const std::function<void(uint64_t, uint64_t)>& progress_;
  FsckReport report_;
  std::unordered_map<ObjectId, std::vector<Location>, ObjectIdHash> places_;
  IdSet packed_, checked_, sound_trees_, sound_contents_;
};

}  // namespace

Result<FsckReport> Fsck(Library& library, const std::function<void(const FsckFinding&)>& finding,
                        const std::function<void(uint64_t, uint64_t)>& progress) {
  return Checker(library, finding, progress).Run();
}

}  // namespace mirage

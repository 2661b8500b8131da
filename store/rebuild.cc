#include "store/rebuild.h"

#include <algorithm>
#include <cstdlib>

#include "store/fsck.h"
#include "store/library_impl.h"

namespace mirage {
namespace {

constexpr int kSalvageLevel = 3;  // zstd's, for the few blocks that are compressed again

// Whether an object is what its id says. A content's list is proved by hashing the content, which its reader does.
bool Checks(const BlockRow& row, std::string_view bytes) {
  if (row.kind == ObjectKind::kContent) return DecodeContentNode(bytes).has_value();
  return HashBytes(bytes) == row.id;
}

}  // namespace

Result<std::unique_ptr<ScratchDirectory>> ScratchDirectory::Create(Env& env, const std::string& library_path,
                                                                   int lock_timeout_ms) {
  ASSIGN_OR_RETURN(const FileLock guard, FileLock::Acquire(env, library_path + "/locks/staging", LockMode::kExclusive,
                                                           lock_timeout_ms, "fsck"));
  ASSIGN_OR_RETURN(StagingDirectory made, StagingDirectory::Make(env, library_path, "fsck"));
  return std::unique_ptr<ScratchDirectory>(new ScratchDirectory(env, std::move(made.path), std::move(made.lock)));
}

Result<std::unique_ptr<ScratchDirectory>> ScratchDirectory::CreateElsewhere(Env& env) {
  const char* given = std::getenv("TMPDIR");
  const std::string path = fmt::format("{}/mirage-fsck-{}", given && *given ? given : "/var/tmp", RandomHex(8));
  TRY(env.MakeDirectory(path, 0700));
  return std::unique_ptr<ScratchDirectory>(new ScratchDirectory(env, path, std::nullopt));
}

ScratchDirectory::~ScratchDirectory() { static_cast<void>(RemoveTree(env_, path_)); }

Result<std::string> ScratchDirectory::Make(const std::string& name) {
  const std::string path = path_ + "/" + name;
  TRY(env_.MakeDirectory(path, 0700));
  return path;
}

Result<PackScan> ScanPacks(Env& env, const std::string& packs_path, std::string_view uuid,
                           const std::map<PackNumber, uint64_t>& condemned, SortedRuns* rows,
                           const std::function<void(std::string what)>& damaged,
                           const std::function<void(uint64_t done, uint64_t total)>& progress) {
  PackScan scan;
  ASSIGN_OR_RETURN(const auto names, env.List(packs_path));
  for (const std::string& name : names) {
    const auto number = ParsePackFileName(name);
    if (!number) {
      damaged(fmt::format("packs/{}: not a pack's name", name));
      scan.strangers.push_back(name);
      continue;
    }
    if (condemned.contains(*number)) continue;
    const auto info = env.Stat(packs_path + "/" + name);
    if (!info) continue;  // collected since the directory was listed
    scan.bytes_before[*number] = scan.total_bytes;
    scan.total_bytes += info->size_bytes;
  }
  for (const auto& item : scan.bytes_before) {
    const PackNumber number = item.first;
    const uint64_t before = item.second;
    const std::string name = PackFileName(number);
    bool whole = true;
    const auto tell = [&](std::string_view what) {
      whole = false;
      damaged(fmt::format("packs/{}: {}", name, what));
    };
    const auto visit = [&](const Location& block_at, const Block& block, std::string_view) -> Status {
      ++scan.blocks;
      Location location = block_at;
      for (size_t slot = 0; slot < block.rows().size(); ++slot) {
        const BlockRow& row = block.rows()[slot];
        const std::string_view bytes = block.Bytes(slot);
        if (!Checks(row, bytes)) {
          tell(fmt::format("block at {}: row {} is not the object {}", location.offset, slot, row.id.Hex()));
          continue;
        }
        location.slot = static_cast<uint16_t>(slot);
        const bool chunk = row.kind == ObjectKind::kChunk;
        ++(chunk ? scan.chunks : scan.objects);
        TRY(rows->Put(row.kind, row.id, chunk ? EncodeLocation(location) : std::string(bytes)));
      }
      if (progress) progress(before + location.offset, scan.total_bytes);
      return {};
    };
    Status visited;
    const std::string path = packs_path + "/" + name;
    const auto file = env.Open(path, OpenMode::kRead);
    if (!file && file.error().code == ENOENT) continue;  // collected meanwhile
    if (!file) return tl::make_unexpected(file.error());
    const auto status = WalkPack(
        **file, path, number, uuid,
        [&](const Location& location, const Block& block, std::string_view record) {
          visited = visit(location, block, record);
          return visited;
        },
        [&](std::string what) { tell(what); });
    if (!visited) return tl::make_unexpected(visited.error());
    if (!status) tell(status.error().message);
    ++scan.packs;
    if (!whole) scan.damaged.push_back(name);
  }
  if (progress) progress(scan.total_bytes, scan.total_bytes);
  return scan;
}

struct PackSalvage::Impl {
  Impl(Env& e, const std::string& s, std::string u)
      : env(e), scratch(s), uuid(std::move(u)), rows(e, s + "/salvaged-rows", kFsckRunsBytes) {}
  Env& env;
  const std::string scratch;
  const std::string uuid;
  SortedRuns rows;
  struct Series {
    std::unique_ptr<PackWriter> writer;
    RawBlock block;  // of objects
  };
  Series chunks, objects;  // they lie in packs of their own
  std::vector<std::string> names;
  uint64_t salvaged = 0;

  Status Seal(Series* series) {
    if (!series->writer) return {};
    TRY(series->writer->Finish());
    names.push_back(PackFileName(series->writer->number()));
    series->writer.reset();
    return {};
  }
  Status Append(Series* series, const CompressedBlock& block) {
    if (series->writer && series->writer->size_bytes() >= kPackTargetBytes) TRY(Seal(series));
    if (!series->writer) {
      const PackNumber number = std::stoull(RandomHex(8), nullptr, 16);
      ASSIGN_OR_RETURN(series->writer, PackWriter::Create(env, scratch + "/" + PackFileName(number), number, uuid));
    }
    ASSIGN_OR_RETURN(Location location, series->writer->Append(block));
    for (size_t slot = 0; slot < block.rows.size(); ++slot) {
      ++salvaged;
      if (block.rows[slot].kind != ObjectKind::kChunk) continue;  // their rows are their bytes, wherever they lie
      location.slot = static_cast<uint16_t>(slot);
      TRY(rows.Put(ObjectKind::kChunk, block.rows[slot].id, EncodeLocation(location)));
    }
    return {};
  }
  Status CloseBlock() {
    if (objects.block.rows.empty()) return {};
    ASSIGN_OR_RETURN(const auto compressed, CompressBlock(objects.block, kSalvageLevel));
    objects.block = {};
    return Append(&objects, compressed);
  }
};

PackSalvage::PackSalvage(Env& env, const std::string& scratch, std::string uuid) {
  static_cast<void>(env.MakeDirectory(scratch + "/salvaged-rows", 0700));  // what does not exist fails when written to
  impl_ = std::make_unique<Impl>(env, scratch, std::move(uuid));
}
PackSalvage::~PackSalvage() = default;
SortedRuns& PackSalvage::rows() { return impl_->rows; }
const std::vector<std::string>& PackSalvage::names() const { return impl_->names; }
uint64_t PackSalvage::objects() const { return impl_->salvaged; }

Status PackSalvage::AddPack(const std::string& path, PackNumber number) {
  Status added;
  const auto add = [&](const Block& block, std::string_view record) -> Status {
    RawBlock good;
    for (size_t slot = 0; slot < block.rows().size(); ++slot) {
      if (!Checks(block.rows()[slot], block.Bytes(slot))) continue;
      good.rows.push_back(block.rows()[slot]);
      good.bytes += block.Bytes(slot);
    }
    if (good.rows.empty()) return {};
    auto& series = good.rows.front().kind == ObjectKind::kChunk ? impl_->chunks : impl_->objects;
    if (good.rows.size() == block.rows().size()) return impl_->Append(&series, RecompressedAsIs(block, record));
    ASSIGN_OR_RETURN(const auto compressed, CompressBlock(good, kSalvageLevel));
    return impl_->Append(&series, compressed);
  };
  ASSIGN_OR_RETURN(const auto file, impl_->env.Open(path, OpenMode::kRead));
  const auto scanned = WalkPack(
      *file, path, number, impl_->uuid,
      [&](const Location&, const Block& block, std::string_view record) {
        added = add(block, record);
        return added;
      },
      [](const std::string&) {});
  static_cast<void>(scanned);  // its damage was told when it was checked
  return added;
}

Status PackSalvage::AddObject(ObjectKind kind, const ObjectId& id, std::string_view bytes) {
  TRY(impl_->rows.Put(kind, id, std::string(bytes)));
  RawBlock& block = impl_->objects.block;
  block.rows.push_back({kind, static_cast<uint32_t>(bytes.size()), id});
  block.bytes += bytes;
  return block.bytes.size() >= kBlockTargetBytes ? impl_->CloseBlock() : Status{};
}

Status PackSalvage::Finish() {
  TRY(impl_->CloseBlock());
  TRY(impl_->Seal(&impl_->chunks));
  return impl_->Seal(&impl_->objects);
}

}  // namespace mirage

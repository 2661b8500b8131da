#include "indexer/known_files.h"

#include <algorithm>
#include <cstring>

namespace mirage {
namespace {

constexpr size_t kNotedBytes = 8 << 20;  // in memory
constexpr int64_t kTickSec = 2;          // FAT's, the coarsest clock of a filesystem

std::string Pack(const FileFacts& facts) { return {reinterpret_cast<const char*>(&facts), sizeof facts}; }

}  // namespace

KnownFiles::KnownFiles(Library& library, const Transaction& transaction, const std::vector<std::string>& branches)
    : library_(library),
      transaction_(transaction),
      noted_(library.env(), transaction.directory(), "noted", kNotedBytes) {
  for (const std::string& branch : branches) {
    if (Open(branch)) break;
    facts_.reset();
    lease_.reset();
  }
  key_ = facts_ ? facts_->key() : FingerprintKey::Random();
}
KnownFiles::~KnownFiles() = default;

bool KnownFiles::Open(const std::string& branch) {
  auto facts = SourceFactsReader::Open(library_.env(), SourceFactsPath(library_.path(), branch));
  if (!facts) return false;
  facts_ = std::move(*facts);
  if (!facts_->IsOf(transaction_.base().made_in())) return false;
  // The version's contents must outlast this import, and be there for the snapshot that it began on.
  auto lease = library_.Lease(facts_->manifest());
  if (!lease || !CheckContents(transaction_.base(), facts_->manifest())) return false;
  const auto manifest = ReadManifest(transaction_.base(), facts_->manifest());
  if (!manifest) return false;
  lease_.emplace(std::move(*lease));
  root_ = manifest->root;
  reader_.emplace(library_.shared_from_this());
  return true;
}

std::optional<uint32_t> KnownFiles::AddFilesystem(SourceFilesystem filesystem) {
  if (filesystems_.size() == kMaxFactsFilesystems || filesystem.identity.size() > kMaxIdentityBytes)
    return std::nullopt;
  Filesystem added;
  if (facts_) {
    const auto& known = facts_->filesystems();
    for (uint32_t i = 0; i < known.size() && !added.before; ++i) {
      if (known[i].identity == filesystem.identity) added.before = i;
    }
  }
  added.source = std::move(filesystem);
  filesystems_.push_back(std::move(added));
  return static_cast<uint32_t>(filesystems_.size() - 1);
}

bool KnownFiles::IsTrusted(const FactsFilesystem& filesystem, const Entry& now, const FileFacts& facts) const {
  return facts.ctime_sec > filesystem.after_sec && facts.ctime_sec < filesystem.before_sec &&
         now.mtime_sec < filesystem.before_sec;
}

std::optional<KnownFiles::Known> KnownFiles::Find(const std::string& path, const Entry& now, uint64_t size,
                                      const FileFacts& facts) {
  Filesystem& filesystem = filesystems_.at(facts.filesystem);
  filesystem.newest_sec = std::max(filesystem.newest_sec, facts.ctime_sec);
  if (!failed_ && !noted_.Add(noted_.Ticket(), path, Pack(facts))) failed_ = true;
  if (!filesystem.before) return std::nullopt;
  const SourceFile* row = Row(path);
  if (row == nullptr || !row->facts || row->facts->filesystem != *filesystem.before) return std::nullopt;
  FileFacts before = *row->facts;
  before.filesystem = facts.filesystem;
  if (before != facts || !IsTrusted(facts_->filesystems()[*filesystem.before], now, facts)) return std::nullopt;
  auto entry = Lookup(path);
  if (!entry || entry->type != now.type || entry->mode != now.mode || entry->uid != now.uid || entry->gid != now.gid ||
      entry->mtime_sec != now.mtime_sec || entry->mtime_nsec != now.mtime_nsec || entry->rdev_major != now.rdev_major ||
      entry->rdev_minor != now.rdev_minor) {
    return std::nullopt;
  }
  if (entry->is_directory()) {
    entry->id = {};
    entry->size = 0;
  } else if ((entry->type == FileType::kRegular || entry->type == FileType::kSymlink) && entry->size != size) {
    return std::nullopt;
  }
  return Known{std::move(*entry), row->fingerprint};
}

std::optional<KnownFiles::Known> KnownFiles::OfSize(const std::string& path, uint64_t size) {
  const SourceFile* row = Row(path);
  if (row == nullptr || row->fingerprint.IsZero()) return std::nullopt;
  auto entry = Lookup(path);
  if (!entry || entry->type != FileType::kRegular || entry->size != size) return std::nullopt;
  return Known{std::move(*entry), row->fingerprint};
}

const SourceFile* KnownFiles::Row(const std::string& path) {
  if (!facts_) return nullptr;
  if (row_path_ != path) {
    row_path_ = path;
    row_ = facts_->Find(path);
  }
  return row_ ? &*row_ : nullptr;
}

std::optional<Entry> KnownFiles::Lookup(const std::string& path) {
  if (path.empty()) return root_;
  const size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "" : path.substr(0, slash);
  if (directory_ != directory) {
    directory_ = directory;
    const auto found = reader_->Find(root_, "/" + directory);
    directory_tree_ = found && found->is_directory() ? found->id : ObjectId();
  }
  if (directory_tree_.IsZero()) return std::nullopt;
  auto entry = reader_->Lookup(directory_tree_, slash == std::string::npos ? path : path.substr(slash + 1));
  return entry ? *entry : std::nullopt;
}

void KnownFiles::Write(EntrySpool& entries, const Exclusion& exclusion) {
  if (failed_ || !TryWrite(entries, exclusion)) writer_.reset();
}

Status KnownFiles::TryWrite(EntrySpool& entries, const Exclusion& exclusion) {
  ASSIGN_OR_RETURN(writer_, SourceFactsWriter::Create(library_.env(), transaction_.directory() + "/facts"));
  PathSpool::Cursor noted(noted_);
  ASSIGN_OR_RETURN(bool more, noted.Next());
  TRY(entries.ForEach([&](const std::string& path, const Entry&, const Fingerprint& fingerprint) -> Status {
    if (exclusion.Matches(path)) return {};
    const std::string key = CanonicalKey(path);
    while (more && noted.key() < key) {
      ASSIGN_OR_RETURN(more, noted.Next());
    }
    SourceFile file{std::nullopt, fingerprint};
    if (more && noted.key() == key) std::memcpy(&file.facts.emplace(), noted.value().data(), sizeof(FileFacts));
    return file.facts || !fingerprint.IsZero() ? writer_->Add(path, file) : Status();
  }));
  std::vector<FactsFilesystem> filesystems;
  for (const Filesystem& filesystem : filesystems_) {
    const int64_t clock = filesystem.source.clock_sec.value_or(filesystem.newest_sec);
    filesystems.push_back({filesystem.source.identity, filesystem.source.made_sec,
                           clock < INT64_MIN + kTickSec ? INT64_MIN : clock - kTickSec});
  }
  return writer_->Finish(filesystems, key_);
}

void KnownFiles::Keep(const std::string& branch, const ObjectId& manifest) {
  if (!writer_) return;
  (void)writer_->Keep(library_.path(), branch, manifest, transaction_.base().made_in());
  writer_.reset();
}

}  // namespace mirage

#include "store/library.h"

#include <pwd.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "store/gc.h"
#include "store/library_impl.h"
#include "store/rocksdb_tail.h"

namespace mirage {
namespace {

constexpr std::string_view kPolicyText =
    "# Policy of this library: may be edited, or removed (then the defaults hold).\n"
    "# compression_level: 2        # zstd, 1 to 19\n"
    "# compact_level: 15          # zstd, of what `mirage gc --compact` rewrites\n"
    "# retention:                  # what every gc keeps of every branch; without it no tag is ever deleted\n"
    "#   keep_last: 10\n"
    "#   keep_monthly: 12\n"
    "#   keep_tags: [golden-*]\n"
    "# lock_timeout_ms: 60000      # how long a writer waits for another\n"
    "# cache_bytes: 67108864       # decoded blocks kept in memory by a mount\n"
    "# max_hole_bytes: 4398046511104  # zeros of sparse files that one import may hash, some 1 GB a second\n"
    "# exclude:                    # never imported or committed; patterns as in fnmatch(3), from the root\n"
    "#   - /var/cache/apt/archives/*\n";

Status RefuseNetworkFilesystem(const std::string& path) {
  struct statfs info {};
  if (::statfs(path.c_str(), &info) != 0) return FailErrno(errno, path);
  switch (static_cast<uint32_t>(info.f_type)) {
    case 0x6969:      // NFS
    case 0x517B:      // SMB
    case 0xFF534D42:  // CIFS
    case 0xFE534D42:  // SMB2
    case 0x65735546:  // FUSE
      return Fail(EOPNOTSUPP,
                  "{}: on a network or FUSE filesystem, where locks are not to be trusted; choose a local one", path);
    default:
      return {};
  }
}

// Only root may give a group what it is not in itself.
Status CheckMember(uint32_t group) {
  if (::geteuid() == 0 || ::getegid() == group) return {};
  const int count = ::getgroups(0, nullptr);
  std::vector<gid_t> groups(static_cast<size_t>(std::max(count, 0)));
  if (count < 0 || ::getgroups(count, groups.data()) < 0) return FailErrno(errno, "ask for the user's groups");
  if (std::find(groups.begin(), groups.end(), group) != groups.end()) return {};
  return Fail(EPERM, "group {}: you are not in it; only its members and root can share a library with it", group);
}

// Opens a directory to its user alone, or to a group; what is made in it follows (env.h).
Status Protect(const std::string& path, const std::optional<uint32_t>& group) {
  if (group && ::chown(path.c_str(), static_cast<uid_t>(-1), *group) != 0) {
    return FailErrno(errno, fmt::format("give {} to group {}", path, *group));
  }
  if (::chmod(path.c_str(), group ? 02770 : 0700) != 0) return FailErrno(errno, fmt::format("protect {}", path));
  return {};
}

// `path` and what lies above it, each name safe from a power cut: a library is no safer than its own name.
Status MakeDirectories(Env& env, const std::string& path, const std::optional<uint32_t>& group) {
  const std::string parent = path.substr(0, std::max<size_t>(path.rfind('/'), 1));
  if (const auto above = env.Stat(parent); !above) {
    if (above.error().code != ENOENT) return tl::make_unexpected(above.error());
    TRY(MakeDirectories(env, parent, group));
    TRY(Protect(parent, group));
  }
  TRY(env.MakeDirectory(path, 0700));
  if (const Status synced = env.SyncDirectory(parent); !synced && synced.error().code != EACCES) return synced;
  return {};
}

// Empties a directory in which an init was cut short: nothing but what init makes, and nothing in that. Any other
// directory that is not empty is refused: a library whose FORMAT was lost may lie there.
Status ClearUnfinished(Env& env, const std::string& path) {
  ASSIGN_OR_RETURN(const auto names, env.List(path));
  if (names.empty()) return {};
  if (std::find(names.begin(), names.end(), "FORMAT") != names.end()) {
    return Fail(EEXIST, "{}: there is a library already", path);
  }
  const auto unfinished = [&](const std::string& name) {
    const auto below = env.List(path + "/" + name);
    if (name == "packs" || name == "staging" || name == "overlays") return below && below->empty();
    if (name == "locks") return below && below->size() <= 1;  // sessions/
    if (name == "refs.log") {
      const auto info = env.Stat(path + "/" + name);
      return info && info->size_bytes <= RefLog::kHeader.size();
    }
    return name == "db" || name == "mirage.yaml" || name == "reserve" || (name.starts_with("mirage.yaml.") && name.ends_with(".tmp")) ||
           (name.starts_with("FORMAT.") && name.ends_with(".tmp"));
  };
  if (!std::all_of(names.begin(), names.end(), unfinished) ||
      std::find(names.begin(), names.end(), "packs") == names.end()) {
    return Fail(EEXIST, "{}: not empty; give a new or an empty directory", path);
  }
  for (const std::string& name : names) TRY(RemoveTree(env, path + "/" + name));
  return {};
}

}  // namespace

std::optional<uint64_t> VersionNumber(std::string_view tag) {
  if (tag.size() < 2 || tag.size() > 19 || tag[0] != 'v' || tag[1] == '0') return std::nullopt;
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(tag.data() + 1, tag.data() + tag.size(), number);
  if (error != std::errc() || end != tag.data() + tag.size()) return std::nullopt;
  return number;
}

std::string RandomHex(size_t bytes) {
  std::string raw(bytes, '\0'), hex;
  for (size_t got = 0; got < bytes;) {
    const ssize_t n = ::getrandom(raw.data() + got, bytes - got, 0);
    if (n > 0) got += static_cast<size_t>(n);
  }
  for (const char c : raw) hex += fmt::format("{:02x}", static_cast<uint8_t>(c));
  return hex;
}

void Now(int64_t* seconds, uint32_t* nanoseconds) {
  struct timespec now {};
  ::clock_gettime(CLOCK_REALTIME, &now);
  *seconds = now.tv_sec;
  *nanoseconds = static_cast<uint32_t>(now.tv_nsec);
}

std::string WhoAmI() {
  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  std::string user = fmt::format("uid{}", ::getuid());
  char buffer[4096];
  struct passwd entry {}, *found = nullptr;
  if (::getpwuid_r(::getuid(), &entry, buffer, sizeof buffer, &found) == 0 && found) user = found->pw_name;
  return user + "@" + host;
}

Library::Library(std::string path, Env& env) : path_(std::move(path)), env_(env) {}
Library::~Library() = default;

Status Library::Create(const std::string& given_path, const CreateOptions& options) {
  Env& env = *options.env;
  std::error_code ec;
  std::string path = std::filesystem::absolute(given_path, ec).lexically_normal().string();
  if (ec) return FailErrno(ec.value(), "make " + given_path);
  if (path.size() > 1 && path.back() == '/') path.pop_back();
  const auto info = env.Stat(path);
  if (!info && info.error().code != ENOENT) return tl::make_unexpected(info.error());
  if (options.group) TRY(CheckMember(*options.group));
  const bool existed = info.has_value();
  if (existed) {
    TRY(ClearUnfinished(env, path));
  } else {
    TRY(MakeDirectories(env, path, options.group));
  }
  const auto fill = [&]() -> Status {
    if (!options.allow_network_filesystem) TRY(RefuseNetworkFilesystem(path));
    TRY(Protect(path, options.group));
    for (const char* name : {"packs", "staging", "overlays", "locks", "locks/sessions"}) {
      TRY(env.MakeDirectory(path + "/" + name, 0700));
    }
    TRY(env.SyncDirectory(path + "/locks"));
    TRY(RefLog::Create(env, path + "/refs.log"));
    TRY(MetadataDb::Create(env, path + "/db"));
    TRY(WriteFileAtomically(env, path + "/mirage.yaml", kPolicyText));
    TRY(MakeReserve(env, path));
    TRY(env.SyncDirectory(path));
    Format format;
    format.chunking = options.chunking;
    const std::string hex = RandomHex(16);
    format.uuid = std::string(ObjectId::FromHex(hex + std::string(32, '0'))->view().substr(0, 16));
    return WriteFileAtomically(env, path + "/FORMAT", EncodeFormat(format));  // from here on it is a library
  };
  auto status = fill();
  if (!status) {
    if (const auto names = env.List(path)) {
      for (const std::string& name : *names) (void)RemoveTree(env, path + "/" + name);
    }
    if (!existed) (void)env.RemoveDirectory(path);
  }
  return status;
}

Result<std::shared_ptr<Library>> Library::Open(const std::string& path, const OpenOptions& options) {
  Env& env = *options.env;
  std::error_code ec;
  const std::string absolute = std::filesystem::weakly_canonical(path, ec).string();
  auto library = std::shared_ptr<Library>(new Library(ec ? path : absolute, env));
  const std::string format_path = library->path_ + "/FORMAT";
  const auto text = ReadWholeFile(env, format_path, 1 << 16);
  if (!text) {
    if (text.error().code == ENOENT || text.error().code == ENOTDIR) {
      return Fail(ENOENT, "{}: no library there; make one with `mirage init {}`, or name yours with -L", path, path);
    }
    if (text.error().code == EACCES) {
      return Fail(EACCES, "{}: Permission denied; a library is open to its owner, or to the group it is shared with", path);
    }
    return tl::make_unexpected(text.error());
  }
  ASSIGN_OR_RETURN(library->format_, DecodeFormat(*text, format_path));
  const std::string policy_path = library->path_ + "/mirage.yaml";
  if (const auto yaml = ReadWholeFile(env, policy_path, 1 << 20)) {
    ASSIGN_OR_RETURN(library->policy_, ParsePolicy(*yaml, policy_path));
  } else if (yaml.error().code != ENOENT) {
    return tl::make_unexpected(yaml.error());
  }
  library->impl_ =
      std::make_unique<Impl>(*library, options.cache_bytes ? options.cache_bytes : library->policy_.cache_bytes);
  library->impl_->lock_timeout_ms =
      options.lock_timeout_ms ? options.lock_timeout_ms : library->policy_.lock_timeout_ms;
  library->impl_->purpose = options.purpose;
  {
    ASSIGN_OR_RETURN(const FileLock lock, Impl::LockPublish(*library, LockMode::kShared, "opening the library"));
    TRY(Impl::Register(*library));
    auto snapshot = Impl::LoadSnapshot(*library);
    if (snapshot) {
      library->impl_->snapshot = std::move(*snapshot);
      return library;
    }
    if (snapshot.error().code != EIO) return tl::make_unexpected(std::move(snapshot).error());
  }
  ASSIGN_OR_RETURN(const FileLock lock, Impl::LockPublish(*library, LockMode::kExclusive, "recovering the database"));
  ASSIGN_OR_RETURN(library->impl_->snapshot, Impl::RecoverSnapshot(*library));
  return library;
}

std::shared_ptr<const Snapshot> Library::snapshot() const {
  const std::lock_guard guard(impl_->mutex);
  return impl_->snapshot;
}

bool Library::LogHasGrown() const {
  const auto size = impl_->log.SizeBytes();
  return size && *size != snapshot()->position().offset;
}

Result<bool> Library::Refresh() {
  if (!LogHasGrown()) return false;
  ASSIGN_OR_RETURN(const FileLock lock, Impl::LockPublish(*this, LockMode::kShared, "refreshing a reader"));
  ASSIGN_OR_RETURN(auto fresh, Impl::LoadSnapshot(*this));
  const std::lock_guard guard(impl_->mutex);
  const bool changed = fresh->sequence() != impl_->snapshot->sequence();
  impl_->snapshot = std::move(fresh);
  return changed;
}

Result<VersionLease> Library::Lease(const ObjectId& manifest) {
  ASSIGN_OR_RETURN(const FileLock lock, Impl::LockPublish(*this, LockMode::kShared, "leasing a version"));
  ASSIGN_OR_RETURN(auto newest, Impl::NewestSnapshot(*this, *snapshot()));
  TRY(CheckContents(*newest, manifest));
  if (!impl_->session) return VersionLease(nullptr, manifest);
  TRY(impl_->session->Lease(manifest));
  return VersionLease(impl_->session, manifest);
}

Status CheckContents(const Snapshot& snapshot, const ObjectId& manifest) {
  const MetadataDb& db = snapshot.database();
  ASSIGN_OR_RETURN(const auto encoding, db.Get(ObjectKind::kManifest, manifest));
  if (!encoding) return Fail(ENOENT, "version {}: no such version in the library", manifest.Hex().substr(0, 12));
  ASSIGN_OR_RETURN(const Manifest version, DecodeManifest(*encoding));
  // What a collection leaves is whole: a row that is there has all rows it names.
  for (const auto& [kind, id] : {std::pair(ObjectKind::kTree, version.root.id), {ObjectKind::kXattrs, version.root.xattrs},
                                 {ObjectKind::kLinks, version.links}, {ObjectKind::kInspection, version.inspection}}) {
    if (id.IsZero()) continue;
    ASSIGN_OR_RETURN(const auto row, db.Get(kind, id));
    if (!row) {
      return Fail(ENOENT, "version {}: its contents were removed by gc; only its history is left",
                  manifest.Hex().substr(0, 12));
    }
  }
  return {};
}

const ObjectReader& Library::objects() const { return impl_->index; }
const ContentReader& Library::contents() const { return impl_->contents; }
const MapReader& Library::trees() const { return impl_->trees; }
const MapReader& Library::links() const { return impl_->links; }
ChunkStore& Library::chunks() const { return impl_->chunks; }

Status Library::MoveRefs(const std::string& action, std::vector<RefMove> moves, const Check& check) {
  {
    ASSIGN_OR_RETURN(const FileLock lock, Impl::LockPublish(*this, LockMode::kExclusive, action));
    ASSIGN_OR_RETURN(const auto newest, Impl::NewestSnapshot(*this, *snapshot()));
    if (check) TRY(check(*newest));
    for (const RefMove& move : moves) {
      if (!move.to.IsZero()) TRY(CheckContents(*newest, move.to));
    }
    TRY(Impl::AppendMoves(*this, *newest, action, std::move(moves)));
  }
  (void)Refresh();  // the refs have moved, whether or not this process sees it yet
  return {};
}

Result<FileLock> Library::Impl::LockPublish(const Library& library, LockMode mode, std::string_view purpose) {
  const std::string locks = library.path_ + "/locks/";
  const int timeout = library.impl_->lock_timeout_ms;
  auto turnstile = FileLock::Acquire(library.env_, locks + "turnstile", mode, timeout, purpose);
  if (!turnstile) return tl::make_unexpected(turnstile.error());
  return FileLock::Acquire(library.env_, locks + "publish", mode, timeout, purpose);
}

void Library::Impl::Apply(const RefRecord& record, std::map<std::string, std::optional<Ref>>* refs,
                          std::map<std::string, uint64_t>* highest) {
  for (const RefMove& move : record.moves) {
    if (move.to.IsZero()) {
      (*refs)[move.name] = std::nullopt;
    } else {
      (*refs)[move.name] = Ref{move.to, record.sequence, record.time_sec};
    }
    const size_t slash = move.name.find('/');
    if (slash == std::string::npos) continue;
    if (const auto number = VersionNumber(std::string_view(move.name).substr(slash + 1))) {
      uint64_t& counter = (*highest)[move.name.substr(0, slash)];
      counter = std::max(counter, *number);
    }
  }
}

Result<std::shared_ptr<const Snapshot>> Library::Impl::LoadSnapshot(const Library& library) {
  auto snapshot = std::shared_ptr<Snapshot>(new Snapshot());
  ASSIGN_OR_RETURN(snapshot->db_, MetadataDb::OpenReadOnly(library.env_, library.path_ + "/db"));
  ASSIGN_OR_RETURN(snapshot->position_, snapshot->db_->Position());
  ASSIGN_OR_RETURN(snapshot->generation_, snapshot->db_->Generation());
  ASSIGN_OR_RETURN(snapshot->made_in_, snapshot->db_->MadeIn());
  if (const auto& session = library.impl_->session) {
    ASSIGN_OR_RETURN(snapshot->hold_, session->Hold(snapshot->generation_));
  }
  return Replay(library, *snapshot, /*fresh=*/true);
}

Result<std::shared_ptr<const Snapshot>> Library::Impl::RecoverSnapshot(const Library& library) {
  auto snapshot = LoadSnapshot(library);  // another process may have been first
  if (snapshot || snapshot.error().code != EIO) return snapshot;
  const auto cut = CutTornTail(library.env_, library.path_ + "/db");
  return cut && *cut ? LoadSnapshot(library) : snapshot;
}

Result<std::shared_ptr<const Snapshot>> Library::Impl::NewestSnapshot(const Library& library, const Snapshot& snapshot) {
  ASSIGN_OR_RETURN(auto newest, ReplayRefs(library, snapshot));
  if (newest->sequence() == snapshot.sequence() && !newest->rows_moved_) return newest;
  return LoadSnapshot(library);
}

Result<std::shared_ptr<const Snapshot>> Library::Impl::ReplayRefs(const Library& library, const Snapshot& snapshot) {
  return Replay(library, snapshot, /*fresh=*/false);
}

Result<std::shared_ptr<const Snapshot>> Library::Impl::Replay(const Library& library, const Snapshot& snapshot,
                                                              bool fresh) {
  auto next = std::shared_ptr<Snapshot>(new Snapshot());
  next->db_ = snapshot.db_;
  next->hold_ = snapshot.hold_;
  next->generation_ = snapshot.generation_;
  next->made_in_ = snapshot.made_in_;
  next->rows_moved_ = snapshot.rows_moved_;
  next->tail_ = snapshot.tail_;
  next->tail_highest_ = snapshot.tail_highest_;
  std::map<std::string, uint64_t> highest;
  const RefLog log(library.env_, library.path_ + "/refs.log");
  ASSIGN_OR_RETURN(next->position_, log.Replay(snapshot.position_, [&](const RefRecord& record) -> Status {
    Apply(record, &next->tail_, &highest);
    // A record that moves nothing tells of a collection, a repair, or of what was brought back.
    if (record.moves.empty() && !fresh) next->rows_moved_ = true;
    return {};
  }));
  for (const auto& [branch, number] : highest) {
    ASSIGN_OR_RETURN(const uint64_t before, next->HighestVersion(branch));
    next->tail_highest_[branch] = std::max(before, number);
  }
  return std::shared_ptr<const Snapshot>(std::move(next));
}

Status Library::Impl::Register(Library& library) {
  auto session = LibrarySession::Register(library.env_, SessionsPath(library), library.impl_->purpose);
  if (!session && session.error().code == EROFS) return {};
  if (!session) return tl::make_unexpected(std::move(session).error());
  library.impl_->session = std::move(*session);
  return {};
}

Result<StagingDirectory> Library::Impl::MakeStaging(const Library& library, std::string_view purpose) {
  Env& env = library.env_;
  // Held while directories are made or swept, so that a new one is never taken for a dead one.
  ASSIGN_OR_RETURN(const FileLock guard,
                   FileLock::Acquire(env, library.path_ + "/locks/staging", LockMode::kExclusive,
                                     library.impl_->lock_timeout_ms, "sweeping the staging area"));
  ASSIGN_OR_RETURN(const auto names, env.List(library.staging_path()));
  for (const std::string& name : names) {
    const std::string dead = library.staging_path() + "/" + name;
    if (FileLock::Acquire(env, dead + "/lock", LockMode::kExclusive, 0, "sweeping")) (void)RemoveTree(env, dead);
  }
  return StagingDirectory::Make(env, library.path_, purpose);
}

Result<StagingDirectory> StagingDirectory::Make(Env& env, const std::string& library_path, std::string_view purpose) {
  std::string path = library_path + "/staging/" + RandomHex(8);
  TRY(env.MakeDirectory(path, 0700));
  auto lock = FileLock::Acquire(env, path + "/lock", LockMode::kExclusive, 0, purpose);
  if (lock) return StagingDirectory{std::move(path), std::move(*lock)};
  (void)RemoveTree(env, path);
  return tl::make_unexpected(std::move(lock).error());
}

Status Library::Impl::AppendMoves(const Library& library, const Snapshot& newest, const std::string& action,
                                  std::vector<RefMove> moves) {
  for (const RefMove& move : moves) {
    ASSIGN_OR_RETURN(const auto now, newest.Branch(move.name));
    const ObjectId current = now ? now->manifest : ObjectId();
    if (current == move.from) continue;
    if (move.from.IsZero()) return Fail(EEXIST, "{}: exists already", move.name);
    if (current.IsZero()) return Fail(EAGAIN, "{}: was deleted meanwhile", move.name);
    return Fail(EAGAIN, "{}: was moved meanwhile, to {}; look at it and try again", move.name, current.Hex().substr(0, 12));
  }
  return AppendRecord(library.env_, library.path_, newest.position(), action, std::move(moves));
}

Status Library::Impl::AppendRecord(Env& env, const std::string& library_path, const LogPosition& at,
                                   const std::string& action, std::vector<RefMove> moves) {
  RefRecord record;
  record.sequence = at.sequence + 1;
  Now(&record.time_sec, &record.time_nsec);
  record.who = WhoAmI();
  record.action = action;
  record.moves = std::move(moves);
  RefLog log(env, library_path + "/refs.log");
  ASSIGN_OR_RETURN([[maybe_unused]] const LogPosition position, log.Append(at, record));
  return {};
}

}  // namespace mirage

#include "mirfs/overlay.h"

#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

#include "store/gc_roots.h"

namespace mirage {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxRecordBytes = 256 << 10;
constexpr int kSchema = 2;
// Longer than another process's glance at the lock (ListOverlays).
constexpr int kLockWaitMs = 1000;

// Paths and messages are bytes; JSON strings are Unicode. Bytes above 0x7f go as U+0080 to U+00FF, one each.
std::string ToUnicode(const std::string& bytes) {
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      text.push_back(c);
    } else {
      text.push_back(static_cast<char>(0xC0 | (byte >> 6)));
      text.push_back(static_cast<char>(0x80 | (byte & 0x3F)));
    }
  }
  return text;
}
std::string FromUnicode(const std::string& text) {
  std::string bytes;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto lead = static_cast<unsigned char>(text[i]);
    if (lead < 0x80 || i + 1 == text.size()) {
      bytes.push_back(text[i]);
    } else {
      bytes.push_back(static_cast<char>(((lead & 0x03) << 6) | (text[++i] & 0x3F)));
    }
  }
  return bytes;
}

std::string EncodeInfo(const OverlayInfo& info) {
  Json json{{"schema", kSchema},
            {"branch", info.branch},
            {"base", info.base.Hex()},
            {"base_tag", info.base_tag},
            {"state", OverlayStateName(info.state)},
            {"mountpoint", ToUnicode(info.mountpoint)},
            {"message", ToUnicode(info.message)},
            {"tag", info.tag},
            {"author", ToUnicode(info.author)},
            {"created", info.created},
            {"detached", info.detached},
            {"boot", info.boot},
            {"error", ToUnicode(info.error)}};
  for (const std::string& conflict : info.conflicts) json["conflicts"].push_back(ToUnicode(conflict));
  return json.dump(2) + "\n";
}

// Of this run of the machine's kernel; empty: it does not say.
std::string BootId() {
  std::string id;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), id);
  return id;
}

Result<OverlayInfo> DecodeInfo(const std::string& id, const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  const auto damaged = [&] { return Fail(EIO, "overlay {}: overlay.json is damaged", id); };
  if (!json.is_object()) return damaged();
  try {
    if (const int schema = json.at("schema").get<int>(); schema != kSchema) {
      return Fail(EPROTONOSUPPORT, "overlay {}: made by {} program: commit or discard it with that", id,
                  schema < kSchema ? "an older" : "a newer");
    }
    OverlayInfo info;
    info.id = id;
    info.branch = json.at("branch").get<std::string>();
    const auto base = ObjectId::FromHex(json.at("base").get<std::string>());
    if (!base) return damaged();
    info.base = *base;
    info.base_tag = json.at("base_tag").get<std::string>();
    const auto state = json.at("state").get<std::string>();
    const auto states = {OverlayInfo::kActive, OverlayInfo::kUnmounted, OverlayInfo::kConflict};
    const auto* found = std::find_if(states.begin(), states.end(), [&](auto s) { return state == OverlayStateName(s); });
    if (found == states.end()) return damaged();
    info.state = *found;
    info.boot = json.value("boot", "");
    if (!info.boot.empty() && info.boot != BootId()) info.state = OverlayInfo::kActive;
    info.mountpoint = FromUnicode(json.at("mountpoint").get<std::string>());
    info.message = FromUnicode(json.at("message").get<std::string>());
    info.tag = json.at("tag").get<std::string>();
    info.author = FromUnicode(json.at("author").get<std::string>());
    info.created = json.at("created").get<int64_t>();
    info.detached = json.value("detached", false);
    info.error = FromUnicode(json.at("error").get<std::string>());
    for (const auto& conflict : json.value("conflicts", Json::array())) {
      info.conflicts.push_back(FromUnicode(conflict.get<std::string>()));
    }
    return info;
  } catch (const Json::exception&) {
    return damaged();
  }
}

Result<std::string> NewId() {
  uint32_t random = 0;
  if (::getrandom(&random, sizeof random, 0) != sizeof random) return FailErrno(errno, "getrandom");
  return fmt::format("{:08x}", random);
}

bool IsId(const std::string& id) {
  return !id.empty() && id.size() <= 64 && id.find_first_not_of("0123456789abcdef") == std::string::npos;
}

Result<OverlayInfo> ReadInfo(Env& env, const std::string& library_path, const std::string& id) {
  auto text = ReadWholeFile(env, OverlayPath(library_path, id) + "/overlay.json", kMaxRecordBytes);
  if (!text) {
    if (text.error().code == ENOENT) return Fail(ENOENT, "overlay {}: no such overlay; see mirage overlay list", id);
    return tl::make_unexpected(std::move(text).error());
  }
  return DecodeInfo(id, *text);
}
Result<OverlayInfo> ReadInfo(Library& library, const std::string& id) {
  return ReadInfo(library.env(), library.path(), id);
}

Result<FileLock> LockOverlay(Library& library, const std::string& id) {
  auto lock = FileLock::Acquire(library.env(), OverlayPath(library.path(), id) + "/lock", LockMode::kExclusive,
                                kLockWaitMs, "overlay " + id);
  if (!lock && lock.error().code == EAGAIN) {
    return Fail(EBUSY, "overlay {}: it is mounted or being committed; unmount it first ({})", id, lock.error().message);
  }
  return lock;
}

// What is left of overlays whose removal was cut short.
void SweepGone(Library& library) {
  const auto names = library.env().List(library.overlays_path());
  if (!names) return;
  for (const std::string& name : *names) {
    if (!name.ends_with(kGoneOverlay)) continue;
    const std::string path = library.overlays_path() + "/" + name;
    const auto lock = FileLock::Acquire(library.env(), path + "/lock", LockMode::kExclusive, 0, "removal of " + name);
    if (lock) static_cast<void>(RemoveTree(library.env(), path));
  }
}

}  // namespace

const char* OverlayStateName(OverlayInfo::State state) {
  switch (state) {
    case OverlayInfo::kActive: return "active";
    case OverlayInfo::kUnmounted: return "unmounted";
    case OverlayInfo::kConflict: return "conflict";
  }
  return "active";
}

std::string OverlayPath(const std::string& library_path, const std::string& id) {
  return Library::OverlaysPath(library_path) + "/" + id;
}

Result<std::vector<OverlayInfo>> ListOverlays(Library& library) { return ListOverlays(library.env(), library.path()); }

Result<std::vector<OverlayInfo>> ListOverlays(Env& env, const std::string& library_path) {
  auto names = env.List(Library::OverlaysPath(library_path));
  if (!names) {
    if (names.error().code == ENOENT) return std::vector<OverlayInfo>();
    return tl::make_unexpected(std::move(names).error());
  }
  std::vector<OverlayInfo> overlays;
  for (const std::string& id : *names) {
    if (!IsId(id)) continue;
    auto info = ReadInfo(env, library_path, id);
    if (!info && info.error().code == ENOENT) continue;  // being made, or being removed
    if (!info) {
      OverlayInfo broken;
      broken.id = id;
      broken.error = info.error().message;
      info = broken;
    }
    const auto lock = FileLock::Acquire(env, OverlayPath(library_path, id) + "/lock", LockMode::kShared, 0, "overlay list");
    info->mounted = !lock && lock.error().code == EAGAIN;
    overlays.push_back(std::move(*info));
  }
  std::stable_sort(overlays.begin(), overlays.end(), [](const auto& a, const auto& b) { return a.created < b.created; });
  return overlays;
}

Result<OverlayInfo> FindOverlay(Library& library, const std::string& id) {
  ASSIGN_OR_RETURN(auto overlays, ListOverlays(library));
  const OverlayInfo* found = nullptr;
  for (const auto& info : overlays) {
    if (id.empty() || !info.id.starts_with(id)) continue;
    if (found) return Fail(EINVAL, "overlay {}: more than one begins so", id);
    found = &info;
  }
  if (!found) return Fail(ENOENT, "overlay {}: no such overlay; see mirage overlay list", id);
  return *found;
}

Status DiscardOverlay(Library& library, const std::string& id) {
  const std::string path = OverlayPath(library.path(), id);
  if (!IsId(id) || !library.env().Stat(path)) {
    return Fail(ENOENT, "overlay {}: no such overlay; see mirage overlay list", id);
  }
  ASSIGN_OR_RETURN(const auto lock, LockOverlay(library, id));
  const std::string gone = fmt::format("{}{}", path, kGoneOverlay);
  TRY(library.env().Rename(path, gone));
  return RemoveTree(library.env(), gone);
}

Overlay::Overlay(Library& library, std::string path, OverlayInfo info, std::optional<FileLock> lock)
    : library_(library), path_(std::move(path)), info_(std::move(info)), lock_(std::move(lock)),
      data_(std::make_unique<DataDirectory>(path_ + "/data")) {}
Overlay::~Overlay() {
  db_.reset();
  if (retired_) static_cast<void>(RemoveTree(library_.env(), path_));
  if (!view_.empty()) static_cast<void>(RemoveTree(library_.env(), view_));
}

Status Overlay::OpenDb(bool create, const RowStore::Limits& limits) {
  ASSIGN_OR_RETURN(db_, OverlayDb::Open(library_.env(), path_ + "/db", create, limits));
  return {};
}

Result<std::unique_ptr<Overlay>> Overlay::Create(Library& library, const CreateOptions& options) {
  SweepGone(library);
  const auto snapshot = library.snapshot();
  ASSIGN_OR_RETURN(const auto head, snapshot->Branch(options.branch));
  if (!head) return Fail(ENOENT, "branch {}: no such branch; see mirage branch", options.branch);
  // Until overlay.json says what lies below, the lease keeps it from a collection.
  ASSIGN_OR_RETURN(const VersionLease lease, library.Lease(head->manifest));
  OverlayInfo info;
  info.branch = options.branch;
  info.base = head->manifest;
  ASSIGN_OR_RETURN(info.base_tag, snapshot->LatestTag(options.branch));
  info.mountpoint = options.mountpoint;
  info.message = options.message;
  info.tag = options.tag;
  info.author = options.author;
  info.detached = options.detached;
  info.created = ::time(nullptr);
  ASSIGN_OR_RETURN(info.id, NewId());
  const std::string path = OverlayPath(library.path(), info.id);
  if (auto made = library.env().MakeDirectory(library.overlays_path(), 0700); !made && made.error().code != EEXIST) {
    return tl::make_unexpected(std::move(made).error());
  }
  TRY(library.env().MakeDirectory(path, 0700));
  auto overlay = [&]() -> Result<std::unique_ptr<Overlay>> {
    ASSIGN_OR_RETURN(auto lock, LockOverlay(library, info.id));
    auto made = std::unique_ptr<Overlay>(new Overlay(library, path, info, std::move(lock)));
    TRY(library.env().MakeDirectory(made->data().path(), 0700));
    TRY(made->OpenDb(true, options.limits));
    TRY(made->Update(info));  // last: before it there is no overlay
    TRY(library.env().SyncDirectory(library.overlays_path()));
    return made;
  }();
  if (!overlay) static_cast<void>(RemoveTree(library.env(), path));
  return overlay;
}

Result<std::unique_ptr<Overlay>> Overlay::Open(Library& library, const std::string& id, const RowStore::Limits& limits) {
  if (!IsId(id)) return Fail(ENOENT, "overlay {}: no such overlay; see mirage overlay list", id);
  TRY(ReadInfo(library, id));
  ASSIGN_OR_RETURN(auto lock, LockOverlay(library, id));
  ASSIGN_OR_RETURN(auto info, ReadInfo(library, id));  // as the last holder left it
  auto overlay =
      std::unique_ptr<Overlay>(new Overlay(library, OverlayPath(library.path(), id), info, std::move(lock)));
  static_cast<void>(RemoveTree(library.env(), overlay->path_ + "/views"));
  TRY(overlay->OpenDb(false, limits));
  return overlay;
}

Result<std::unique_ptr<Overlay>> Overlay::OpenView(Library& library, const std::string& id, const std::string& database) {
  ASSIGN_OR_RETURN(auto info, ReadInfo(library, id));
  auto overlay = std::unique_ptr<Overlay>(new Overlay(library, OverlayPath(library.path(), id), info, std::nullopt));
  ASSIGN_OR_RETURN(overlay->db_, OverlayDb::Open(library.env(), database, false));
  overlay->view_ = database;
  return overlay;
}

Result<std::string> Overlay::MakeView() const {
  const std::string views = path_ + "/views";
  if (auto made = library_.env().MakeDirectory(views, 0700); !made && made.error().code != EEXIST) {
    return tl::make_unexpected(std::move(made).error());
  }
  ASSIGN_OR_RETURN(const std::string id, NewId());
  std::string path = views + "/" + id;
  if (auto copied = db_->CopyTo(path); !copied) {
    static_cast<void>(RemoveTree(library_.env(), path));
    return tl::make_unexpected(std::move(copied).error());
  }
  return path;
}

Status Overlay::Update(const OverlayInfo& info) {
  OverlayInfo next = info;
  next.id = info_.id;
  next.base = info_.base;
  next.created = info_.created;
  TRY(WriteFileAtomically(library_.env(), path_ + "/overlay.json", EncodeInfo(next)));
  info_ = std::move(next);
  return {};
}

Status Overlay::MarkUnmounted(bool data_synced, const OverlayInfo& info) {
  OverlayInfo next = info;
  next.state = OverlayInfo::kUnmounted;
  next.boot = data_synced ? "" : BootId();
  if (!data_synced && next.boot.empty()) TRY(data_->SyncAll());
  return Update(next);
}

Status Overlay::MarkMounted(const std::string& mountpoint) {
  OverlayInfo next = info_;
  next.state = OverlayInfo::kActive;
  next.boot.clear();
  next.mountpoint = mountpoint;
  next.error.clear();
  next.conflicts.clear();
  return Update(next);
}

Status Overlay::Retire() {
  db_.reset();
  const std::string gone = fmt::format("{}{}", path_, kGoneOverlay);
  TRY(library_.env().Rename(path_, gone));
  path_ = gone;
  retired_ = true;
  return {};
}

Status Overlay::Remove() {
  TRY(Retire());
  retired_ = false;
  TRY(RemoveTree(library_.env(), path_));
  lock_.reset();
  return {};
}

}  // namespace mirage

#include "tests/testing/fault_env.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <utility>

namespace mirage::testing {
namespace {

// A change of a file's bytes that no sync has covered.
struct Pending {
  bool truncate = false;
  uint64_t offset = 0;  // of the write; of a truncate the new size
  std::string bytes;
};

void Apply(const Pending& change, std::string* bytes) {
  if (change.truncate) {
    bytes->resize(change.offset, '\0');
    return;
  }
  if (bytes->size() < change.offset + change.bytes.size()) bytes->resize(change.offset + change.bytes.size(), '\0');
  bytes->replace(change.offset, change.bytes.size(), change.bytes);
}

// Part of a write: its first bytes; and, if it made the file longer, perhaps the whole length with zeros in it.
void ApplyTorn(const Pending& change, std::mt19937_64* random, std::string* bytes) {
  if (change.truncate) return;
  Pending torn = change;
  torn.bytes.resize((*random)() % (change.bytes.size() + 1));
  Apply(torn, bytes);
  const uint64_t end = change.offset + change.bytes.size();
  if ((*random)() % 2 == 0 && bytes->size() < end) bytes->resize(end, '\0');
}

}  // namespace

struct FaultEnv::Node {
  bool is_directory = false;
  std::map<std::string, NodeRef> names, safe_names;  // of a directory
  std::string safe_bytes;                            // of a file
  std::vector<Pending> pending;
  std::optional<std::filesystem::file_time_type> written;  // of a file that was there from the start
};

struct FaultEnv::NameChange {
  NodeRef directory;
  std::string name;
  NodeRef node;  // null: the name goes
};

class FaultEnv::FaultFile final : public File {
 public:
  FaultFile(FaultEnv& env, std::unique_ptr<File> file, NodeRef node, std::string path)
      : env_(env), file_(std::move(file)), node_(std::move(node)), path_(std::move(path)) {}

  Status ReadAt(uint64_t offset, size_t size, std::string* out) const override {
    const std::lock_guard lock(env_.mutex_);
    TRY(env_.CheckAlive(path_));
    return file_->ReadAt(offset, size, out);
  }
  Status WriteAt(uint64_t offset, std::string_view bytes) override {
    const std::lock_guard lock(env_.mutex_);
    if (auto status = env_.Count(Kind::kWrite, path_); !status) {
      if (status.error().code == ENOSPC && !env_.stopped_) TRY(Write(offset, bytes.substr(0, bytes.size() / 2)));
      return status;
    }
    return Write(offset, bytes);
  }
  Status Truncate(uint64_t size) override {
    const std::lock_guard lock(env_.mutex_);
    TRY(env_.Count(Kind::kTruncate, path_));
    TRY(file_->Truncate(size));
    node_->pending.push_back({.truncate = true, .offset = size, .bytes = {}});
    return {};
  }
  Status Sync() override {
    const std::lock_guard lock(env_.mutex_);
    if (auto status = env_.Count(Kind::kSync, path_); !status) {
      if (!env_.stopped_) node_->pending.clear();
      return status;
    }
    for (const Pending& change : node_->pending) Apply(change, &node_->safe_bytes);
    node_->pending.clear();
    return {};
  }
  Result<uint64_t> Size() const override {
    const std::lock_guard lock(env_.mutex_);
    TRY(env_.CheckAlive(path_));
    return file_->Size();
  }
  int descriptor() const override { return file_->descriptor(); }

 private:
  Status Write(uint64_t offset, std::string_view bytes) {
    TRY(file_->WriteAt(offset, bytes));
    node_->pending.push_back({.truncate = false, .offset = offset, .bytes = std::string(bytes)});
    return {};
  }

  FaultEnv& env_;
  std::unique_ptr<File> file_;
  NodeRef node_;
  std::string path_;
};

FaultEnv::FaultEnv(std::string root) : root_path_(std::move(root)) { Load(); }
FaultEnv::~FaultEnv() = default;

void FaultEnv::Load() {
  journal_.clear();
  root_ = LoadNode(root_path_);
}

FaultEnv::NodeRef FaultEnv::LoadNode(const std::string& path) {
  auto node = std::make_shared<Node>();
  node->is_directory = std::filesystem::is_directory(path);
  if (node->is_directory) {
    for (const auto& item : std::filesystem::directory_iterator(path)) {
      node->names[item.path().filename().string()] = LoadNode(item.path().string());
    }
    node->safe_names = node->names;
  } else {
    std::ostringstream bytes;
    bytes << std::ifstream(path, std::ios::binary).rdbuf();
    node->safe_bytes = std::move(bytes).str();
    node->written = std::filesystem::last_write_time(path);
  }
  return node;
}

std::string FaultEnv::Below(const std::string& path) const {
  return path.size() > root_path_.size() + 1 ? path.substr(root_path_.size() + 1) : "";
}

FaultEnv::NodeRef FaultEnv::Find(const std::string& path) const {
  if (path != root_path_ && !path.starts_with(root_path_ + "/")) return nullptr;
  NodeRef node = root_;
  std::istringstream parts(Below(path));
  for (std::string part; node && std::getline(parts, part, '/');) {
    if (part.empty()) continue;
    const auto found = node->names.find(part);
    node = found == node->names.end() ? nullptr : found->second;
  }
  return node;
}

std::optional<FaultEnv::Place> FaultEnv::FindPlace(const std::string& path) const {
  const size_t slash = path.rfind('/');
  NodeRef directory = Find(path.substr(0, slash));
  if (!directory || !directory->is_directory) return std::nullopt;
  return Place{std::move(directory), path.substr(slash + 1)};
}

Status FaultEnv::CheckAlive(const std::string& path) const {
  if (stopped_) return Fail(EIO, "{}: the process has stopped", path);
  return {};
}

Status FaultEnv::Count(Kind kind, const std::string& path) {
  TRY(CheckAlive(path));
  ++operations_;
  if (watcher_) watcher_({operations_, kind, Below(path)});
  if (operations_ == stop_at_) {
    stopped_ = true;
    return CheckAlive(path);
  }
  if (operations_ == fail_at_) {
    failed_ = true;
    return FailErrno(fail_code_, "write " + path);
  }
  const bool needs_room = kind == Kind::kCreate || kind == Kind::kWrite || kind == Kind::kMakeDirectory || kind == Kind::kLink;
  if (fill_at_ != 0 && operations_ >= fill_at_ && needs_room) {
    failed_ = true;
    return FailErrno(ENOSPC, "write " + path);
  }
  return {};
}

void FaultEnv::Change(std::vector<NameChange> changes) {
  for (const NameChange& change : changes) {
    if (change.node) {
      change.directory->names[change.name] = change.node;
    } else {
      change.directory->names.erase(change.name);
    }
  }
  journal_.push_back(std::move(changes));
}

void FaultEnv::SyncNames(const NodeRef& directory) {
  for (auto& changes : journal_) {
    // Of a rename between directories the new name goes with either.
    const bool touched =
        std::any_of(changes.begin(), changes.end(), [&](const NameChange& c) { return c.directory == directory; });
    if (!touched) continue;
    std::erase_if(changes, [&](const NameChange& change) {
      if (change.directory != directory && !change.node) return false;
      if (change.node) {
        change.directory->safe_names[change.name] = change.node;
      } else {
        change.directory->safe_names.erase(change.name);
      }
      return true;
    });
  }
  std::erase_if(journal_, [](const auto& changes) { return changes.empty(); });
}

uint64_t FaultEnv::operations() const {
  const std::lock_guard lock(mutex_);
  return operations_;
}
void FaultEnv::StopAt(uint64_t number) {
  const std::lock_guard lock(mutex_);
  stop_at_ = number;
}
bool FaultEnv::stopped() const {
  const std::lock_guard lock(mutex_);
  return stopped_;
}
void FaultEnv::FailAt(uint64_t number, int code) {
  const std::lock_guard lock(mutex_);
  fail_at_ = number;
  fail_code_ = code;
}
void FaultEnv::FillAt(uint64_t number) {
  const std::lock_guard lock(mutex_);
  fill_at_ = number;
}
bool FaultEnv::failed() const {
  const std::lock_guard lock(mutex_);
  return failed_;
}
void FaultEnv::Heal() {
  const std::lock_guard lock(mutex_);
  stop_at_ = fail_at_ = fill_at_ = 0;
  failed_ = false;
}
void FaultEnv::Watch(std::function<void(const Operation&)> watcher) {
  const std::lock_guard lock(mutex_);
  watcher_ = std::move(watcher);
}

std::vector<std::string> FaultEnv::Unsynced() const {
  std::vector<std::string> found;
  const std::function<void(const NodeRef&, const std::string&)> walk = [&](const NodeRef& node, const std::string& path) {
    if (!node->is_directory) {
      if (!node->pending.empty()) found.push_back(path);
      return;
    }
    const std::string prefix = path.empty() ? "" : path + "/";
    for (const auto& [name, child] : node->names) {
      const auto safe = node->safe_names.find(name);
      if (safe == node->safe_names.end() || safe->second != child) found.push_back(prefix + " " + name);
      walk(child, prefix + name);
    }
  };
  walk(root_, "");
  return found;
}

void FaultEnv::Restart(Loss loss, uint64_t seed) {
  const std::lock_guard lock(mutex_);
  std::mt19937_64 random(seed);
  if (loss != Loss::kNothing) {
    const size_t kept = loss == Loss::kUnsynced        ? 0
                        : loss == Loss::kUnsyncedBytes ? journal_.size()
                                                       : random() % (journal_.size() + 1);
    for (size_t i = 0; i < kept; ++i) {
      for (const NameChange& change : journal_[i]) {
        if (change.node) {
          change.directory->safe_names[change.name] = change.node;
        } else {
          change.directory->safe_names.erase(change.name);
        }
      }
    }
    for (const auto& item : std::filesystem::directory_iterator(root_path_)) std::filesystem::remove_all(item.path());
    const std::function<void(const NodeRef&, const std::string&)> write = [&](const NodeRef& node,
                                                                              const std::string& path) {
      if (!node->is_directory) {
        std::string bytes = node->safe_bytes;
        const size_t whole = loss == Loss::kSome ? random() % (node->pending.size() + 1) : 0;
        for (size_t i = 0; i < whole; ++i) Apply(node->pending[i], &bytes);
        if (loss == Loss::kSome && whole < node->pending.size()) ApplyTorn(node->pending[whole], &random, &bytes);
        std::ofstream(path, std::ios::binary) << bytes;
        if (node->written) std::filesystem::last_write_time(path, *node->written);
        return;
      }
      std::filesystem::create_directory(path);
      for (const auto& [name, child] : node->safe_names) write(child, path + "/" + name);
    };
    for (const auto& [name, child] : root_->safe_names) write(child, root_path_ + "/" + name);
  }
  stop_at_ = fail_at_ = fill_at_ = 0;
  stopped_ = failed_ = false;
  Load();
}

Result<std::unique_ptr<File>> FaultEnv::Open(const std::string& path, OpenMode mode) {
  const std::lock_guard lock(mutex_);
  TRY(CheckAlive(path));
  const auto place = FindPlace(path);
  if (!place) return Env::Default().Open(path, mode);
  NodeRef node = Find(path);
  const bool creates = !node && (mode == OpenMode::kCreate || mode == OpenMode::kOpenOrCreate);
  if (creates) TRY(Count(Kind::kCreate, path));
  ASSIGN_OR_RETURN(auto file, Env::Default().Open(path, mode));
  if (creates) {
    node = std::make_shared<Node>();
    Change({{place->directory, place->name, node}});
  }
  return std::make_unique<FaultFile>(*this, std::move(file), std::move(node), path);
}

Status FaultEnv::Rename(const std::string& from, const std::string& to) {
  const std::lock_guard lock(mutex_);
  TRY(Count(Kind::kRename, to));
  TRY(Env::Default().Rename(from, to));
  const auto source = FindPlace(from), target = FindPlace(to);
  Change({{source->directory, source->name, nullptr}, {target->directory, target->name, Find(from)}});
  return {};
}

Status FaultEnv::Link(const std::string& from, const std::string& to) {
  const std::lock_guard lock(mutex_);
  TRY(Count(Kind::kLink, to));
  TRY(Env::Default().Link(from, to));
  const auto target = FindPlace(to);
  Change({{target->directory, target->name, Find(from)}});
  return {};
}

Status FaultEnv::Unlink(const std::string& path) {
  const std::lock_guard lock(mutex_);
  TRY(Count(Kind::kUnlink, path));
  TRY(Env::Default().Unlink(path));
  const auto place = FindPlace(path);
  Change({{place->directory, place->name, nullptr}});
  return {};
}

Status FaultEnv::MakeDirectory(const std::string& path, unsigned mode) {
  const std::lock_guard lock(mutex_);
  TRY(Count(Kind::kMakeDirectory, path));
  TRY(Env::Default().MakeDirectory(path, mode));
  const auto place = FindPlace(path);
  auto node = std::make_shared<Node>();
  node->is_directory = true;
  if (place) Change({{place->directory, place->name, std::move(node)}});
  return {};
}

Status FaultEnv::RemoveDirectory(const std::string& path) {
  const std::lock_guard lock(mutex_);
  TRY(Count(Kind::kRemoveDirectory, path));
  TRY(Env::Default().RemoveDirectory(path));
  const auto place = FindPlace(path);
  Change({{place->directory, place->name, nullptr}});
  return {};
}

Status FaultEnv::SyncDirectory(const std::string& path) {
  const std::lock_guard lock(mutex_);
  TRY(Count(Kind::kSyncDirectory, path));
  if (const NodeRef node = Find(path)) SyncNames(node);
  return {};
}

Result<std::vector<std::string>> FaultEnv::List(const std::string& path) {
  const std::lock_guard lock(mutex_);
  TRY(CheckAlive(path));
  return Env::Default().List(path);
}

Result<FileInfo> FaultEnv::Stat(const std::string& path) {
  const std::lock_guard lock(mutex_);
  TRY(CheckAlive(path));
  return Env::Default().Stat(path);
}

}  // namespace mirage::testing

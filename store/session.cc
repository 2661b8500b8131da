#include "store/session.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "store/library_impl.h"

namespace mirage {
namespace {

constexpr size_t kNameDigits = 16;
constexpr size_t kMaxWords = 256;
// Longer than another process's glance at the lock (LiveSessions).
constexpr int kRegisterWaitMs = 1000;

// Whether a process holds the session's lock. A shared lock leaves the words in the file alone.
bool IsAlive(Env& env, const std::string& path) {
  if (!env.Stat(path)) return false;  // what is left of one; Acquire would make the file
  const auto lock = FileLock::Acquire(env, path, LockMode::kShared, 0, "looking at sessions");
  return !lock && lock.error().code == EAGAIN;
}

std::string NameOf(const std::string& file) { return file.substr(0, kNameDigits); }

}  // namespace

LibrarySession::LibrarySession(Env& env, std::string directory, std::string name, FileLock lock)
    : env_(env), directory_(std::move(directory)), name_(std::move(name)), lock_(std::move(lock)) {}

std::string LibrarySession::Path(char kind, const std::string& value) const {
  return fmt::format("{}/{}-{}{}", directory_, name_, kind, value);
}

Result<std::shared_ptr<LibrarySession>> LibrarySession::Register(Env& env, const std::string& directory,
                                                                 std::string_view purpose) {
  const std::string name = RandomHex(kNameDigits / 2);
  ASSIGN_OR_RETURN(auto lock, FileLock::Acquire(env, directory + "/" + name, LockMode::kExclusive, kRegisterWaitMs, purpose));
  auto session = std::shared_ptr<LibrarySession>(new LibrarySession(env, directory, name, std::move(lock)));
  ASSIGN_OR_RETURN([[maybe_unused]] const auto file, env.Open(session->Path('g', "0"), OpenMode::kCreate));
  return session;
}

LibrarySession::~LibrarySession() {
  // The locked file last: without it the others belong to nobody.
  for (const auto& [manifest, count] : leases_) (void)env_.Unlink(Path('l', manifest.Hex()));
  (void)env_.Unlink(Path('g', std::to_string(generation_)));
  (void)env_.Unlink(directory_ + "/" + name_);
}

Result<std::shared_ptr<const void>> LibrarySession::Hold(uint64_t generation) {
  const std::lock_guard guard(mutex_);
  holds_.insert(generation);
  if (auto advanced = Advance(); !advanced) {
    holds_.erase(holds_.find(generation));
    return tl::make_unexpected(std::move(advanced).error());
  }
  auto self = shared_from_this();
  return std::shared_ptr<const void>(self.get(), [self, generation](const void*) { self->LetGo(generation); });
}

void LibrarySession::LetGo(uint64_t generation) {
  const std::lock_guard guard(mutex_);
  holds_.erase(holds_.find(generation));
  (void)Advance();  // a generation that is too low only postpones a collection
}

Status LibrarySession::Advance() {
  if (holds_.empty() || *holds_.begin() <= generation_) return {};
  const uint64_t next = *holds_.begin();
  TRY(env_.Rename(Path('g', std::to_string(generation_)), Path('g', std::to_string(next))));
  generation_ = next;
  return {};
}

Status LibrarySession::Lease(const ObjectId& manifest) {
  const std::lock_guard guard(mutex_);
  if (leases_[manifest]++ > 0) return {};
  auto file = env_.Open(Path('l', manifest.Hex()), OpenMode::kOpenOrCreate);
  if (file) return {};
  leases_.erase(manifest);
  return tl::make_unexpected(std::move(file).error());
}

void LibrarySession::Release(const ObjectId& manifest) {
  const std::lock_guard guard(mutex_);
  const auto it = leases_.find(manifest);
  if (it == leases_.end() || --it->second > 0) return;
  leases_.erase(it);
  (void)env_.Unlink(Path('l', manifest.Hex()));
}

Result<std::vector<SessionInfo>> LiveSessions(Env& env, const std::string& directory) {
  ASSIGN_OR_RETURN(const auto names, env.List(directory));
  std::vector<SessionInfo> sessions;  // the names are sorted: a session's file comes before those that begin with its name
  std::optional<std::string> dead;
  for (const std::string& file : names) {
    const std::string name = NameOf(file);
    if (sessions.empty() || sessions.back().name != name) {
      if (dead == name) continue;
      if (!IsAlive(env, directory + "/" + name)) {
        dead = name;
        continue;
      }
      SessionInfo info{.name = name, .words = {}, .generation = 0, .leases = {}};
      if (const auto words = ReadWholeFile(env, directory + "/" + name, kMaxWords)) {
        info.words = words->substr(0, words->find('\n'));
      }
      sessions.push_back(std::move(info));
    }
    if (file.size() < kNameDigits + 2) continue;
    const std::string_view value = std::string_view(file).substr(kNameDigits + 2);
    if (file[kNameDigits + 1] == 'g') {
      std::from_chars(value.data(), value.data() + value.size(), sessions.back().generation);
    } else if (const auto id = ObjectId::FromHex(value); id && file[kNameDigits + 1] == 'l') {
      sessions.back().leases.push_back(*id);
    }
  }
  return sessions;
}

void SweepSessions(Env& env, const std::string& directory) {
  const auto names = env.List(directory);
  if (!names) return;
  std::string alive;
  // From the end: a session's own file goes after those beside it.
  for (auto file = names->rbegin(); file != names->rend(); ++file) {
    const std::string name = NameOf(*file);
    if (name == alive) continue;
    if (IsAlive(env, directory + "/" + name)) {
      alive = name;
    } else {
      (void)env.Unlink(directory + "/" + *file);
    }
  }
}

}  // namespace mirage

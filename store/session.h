// A process's registration in a library it has open (FORMAT.md, "Sessions and collection"). What it says lies in the names
// of files, not in their bytes, so that no write is ever torn and a full disk keeps nobody out:
//
//   locks/sessions/HEX       flock'd exclusively for life, so a dead process has none; text: process, program, purpose
//   locks/sessions/HEX-gN    this process looks at nothing that was condemned in generation N or before
//   locks/sessions/HEX-lID   a lease: the version ID is a root of every collection while the file is there
//
// The generation is the least of all snapshots of the process that are still alive, and only ever rises. Registering,
// and leasing, happen under locks/publish, at least shared: who holds it exclusively sees every session whole. Letting go
// needs no lock, for it only permits more. Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "store/file_lock.h"
#include "store/object_id.h"

namespace mirage {

class LibrarySession : public std::enable_shared_from_this<LibrarySession> {
 public:
  // In `directory`, at generation 0. EROFS: nothing can be written there (then nothing can be collected either).
  static Result<std::shared_ptr<LibrarySession>> Register(Env& env, const std::string& directory, std::string_view purpose);
  ~LibrarySession();

  // Something of this generation is in use until what is returned is gone. Keeps the session alive.
  Result<std::shared_ptr<const void>> Hold(uint64_t generation);
  // Counted: as many Release as Lease end it.
  Status Lease(const ObjectId& manifest);
  void Release(const ObjectId& manifest);
  const std::string& name() const { return name_; }  // HEX

 private:
  LibrarySession(Env& env, std::string directory, std::string name, FileLock lock);
  std::string Path(char kind, const std::string& value) const;
  Status Advance();  // renames HEX-gN to what the holds allow; the mutex is held
  void LetGo(uint64_t generation);

  Env& env_;
  const std::string directory_, name_;
  FileLock lock_;
  std::mutex mutex_;  // guards all below
  uint64_t generation_ = 0;
  std::multiset<uint64_t> holds_;
  std::map<ObjectId, size_t> leases_;
};

// A version that no collection touches while this lives. Move-only; harmless after the library is closed.
class VersionLease {
 public:
  VersionLease() = default;
  VersionLease(std::shared_ptr<LibrarySession> session, const ObjectId& manifest)
      : session_(std::move(session)), manifest_(manifest) {}
  VersionLease(VersionLease&&) noexcept = default;
  VersionLease& operator=(VersionLease&& other) noexcept {
    if (this != &other) {
      Release();
      session_ = std::move(other.session_);
      manifest_ = other.manifest_;
    }
    return *this;
  }
  ~VersionLease() { Release(); }
  void Release() {
    if (session_) session_->Release(manifest_);
    session_.reset();
  }
  const ObjectId& manifest() const { return manifest_; }

 private:
  std::shared_ptr<LibrarySession> session_;  // null: of a library that cannot be written
  ObjectId manifest_;
};

// Another session, as its files say.
struct SessionInfo {
  std::string name;            // HEX
  std::string words;           // "PID PROGRAM PURPOSE"
  uint64_t generation = 0;     // 0 where it says none
  std::vector<ObjectId> leases;
};
// Those whose process lives. Whole under the exclusive publish lock; without it, one that is being made may be missing.
Result<std::vector<SessionInfo>> LiveSessions(Env& env, const std::string& directory);
// Under the exclusive publish lock: removes what dead processes left.
void SweepSessions(Env& env, const std::string& directory);

}  // namespace mirage

// The data files of an overlay: data/<inode>, 16 hexadecimal digits, all in one directory.
//
// To make a file is the slowest thing that a host's filesystem does with a small one. So when many are being made a thread
// makes spares ahead, named by inode numbers that were set aside for them: a creation takes one, number and file at once. A
// spare that is left over has no record in the database, and is removed like any data file that lost its own.
//
// Thread-safe.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "store/result.h"

namespace mirage {

class DataDirectory {
 public:
  struct Spare {
    uint64_t inode = 0;
    int descriptor = -1;  // its empty file, read and write; the taker's to close
  };

  explicit DataDirectory(std::string path) : path_(std::move(path)) {}
  ~DataDirectory() { RemoveSpares(); }
  DataDirectory(const DataDirectory&) = delete;
  DataDirectory& operator=(const DataDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string PathOf(uint64_t inode) const;
  // Visits the inodes that have a data file, in no order.
  Status Visit(const std::function<Status(uint64_t inode)>& visit) const;

  // An empty file, whatever was there before; open for reading and writing.
  Result<int> Make(uint64_t inode);
  void Remove(uint64_t inode) const;
  // The names of all files made so far are on the disk when it returns. Costs nothing when they are.
  Status SyncNames();
  // Everything in all files to the disk in one call, however many they are, whoever wrote them.
  Status SyncAll() const;

  // A file for a new inode, its times those of now; nullopt: none is ready.
  std::optional<Spare> TakeSpare();
  // How many inode numbers AddSpares should be given, going by the files that were taken and missed lately; mostly 0.
  uint64_t SparesWanted();
  // Makes spares for the inodes [first, first + count), which are nobody else's, in the background; none, if there is no
  // thread for it.
  void AddSpares(uint64_t first, uint64_t count) noexcept;
  // Removes those that nobody took, and ends the thread, until there is a need again.
  void RemoveSpares();
  // To be called now and then: does so if no file has been made for a while.
  void RemoveIdleSpares();

 private:
  void MakeSpares();

  const std::string path_;
  std::mutex maker_mutex_;          // guards maker_; before mutex_
  std::thread maker_;
  std::mutex names_mutex_;          // held over a sync of the directory; before mutex_
  std::mutex mutex_;                // guards all below
  uint64_t made_ = 1, synced_ = 0;  // names, counted; those found in an older directory may not be on the disk
  uint64_t wanted_ = 0;             // files that were asked for, and the last time; since all was idle
  std::chrono::steady_clock::time_point last_wanted_;
  std::deque<uint64_t> ordered_;    // inodes whose files the thread has to make
  std::deque<Spare> spares_;
  std::condition_variable wake_;
  bool stop_ = false;
};

}  // namespace mirage

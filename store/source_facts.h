// What the source of a branch's last import said of each file beyond what the version holds, inode number and ctime, and
// a fingerprint of the bytes that were read. By the first the next import knows what it need not read again, by the other
// what it need not hash. A hint beside the objects, the file `facts/BRANCH` (FORMAT.md, "Source facts"): it may be lost,
// old or damaged at any time, and then everything is read and hashed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/env.h"
#include "store/fingerprint.h"
#include "store/object_id.h"

namespace mirage {

// A filesystem of the source. A file is known again only on the filesystem that it was on, and only by times after
// `after_sec` and before `before_sec`: what was written when the filesystem was made was not stamped by a kernel, and
// what was written in the moment of the import may have changed again within the clock's tick.
struct FactsFilesystem {
  std::string identity;  // "uuid 0123-..."; at most kMaxIdentityBytes
  int64_t after_sec = INT64_MIN, before_sec = INT64_MIN;
  bool operator==(const FactsFilesystem&) const = default;
};
struct FileFacts {
  uint32_t filesystem = 0;  // an index of the FactsFilesystems
  uint64_t inode = 0;
  int64_t ctime_sec = 0;
  uint32_t ctime_nsec = 0;
  bool operator==(const FileFacts&) const = default;
};

// Of one path: either may be missing, not both.
struct SourceFile {
  std::optional<FileFacts> facts;
  Fingerprint fingerprint;  // of a regular file's bytes; zero: not known
  bool operator==(const SourceFile&) const = default;
};

constexpr size_t kMaxIdentityBytes = 255;
constexpr size_t kMaxFactsFilesystems = 4096;

// ---- Its pieces: for the reader, the writer, and who tests them.

// The rows of a block, by path with NUL for '/', strictly ascending.
using FactsRow = std::pair<std::string, SourceFile>;
std::string EncodeFactsBlock(const std::vector<FactsRow>& rows);
Result<std::vector<FactsRow>> DecodeFactsBlock(std::string_view bytes);

struct FactsIndex {
  struct Block {
    uint64_t offset = 0, checksum = 0;
    uint32_t length = 0;
    std::string first;  // key
    bool operator==(const Block&) const = default;
  };
  std::vector<FactsFilesystem> filesystems;
  std::vector<Block> blocks;
};
std::string EncodeFactsIndex(const FactsIndex& index);
Result<FactsIndex> DecodeFactsIndex(std::string_view bytes);

struct FactsFooter {
  ObjectId manifest;   // the version whose source this is
  uint32_t made_in = 0;  // of the library, when the import began (Snapshot::made_in)
  FingerprintKey key;  // of the fingerprints
  uint64_t index_offset = 0, index_length = 0, index_checksum = 0;
};
constexpr size_t kFactsFooterBytes = 96;
std::string EncodeFactsFooter(const FactsFooter& footer);
Result<FactsFooter> DecodeFactsFooter(std::string_view bytes);

// ---- The file.

class SourceFactsWriter {
 public:
  static Result<std::unique_ptr<SourceFactsWriter>> Create(Env& env, const std::string& path);
  // In canonical order of paths (entry_spool.h), each once.
  Status Add(std::string_view path, const SourceFile& file);
  // Writes the rest, all but the footer.
  Status Finish(const std::vector<FactsFilesystem>& filesystems, const FingerprintKey& key);
  // Makes it the facts of `branch` and `manifest`, in place of older ones. `made_in`: of the snapshot whose contents they
  // take for there. Not synced: what a power cut leaves does not check.
  Status Keep(const std::string& library_path, const std::string& branch, const ObjectId& manifest, uint64_t made_in);

 private:
  SourceFactsWriter(Env& env, std::string path) : env_(env), path_(std::move(path)) {}
  Status WriteBlock();
  Env& env_;
  const std::string path_;
  std::unique_ptr<File> file_;
  std::vector<FactsRow> rows_;
  size_t encoded_bytes_ = 0, key_bytes_ = 0;  // of rows_
  FactsIndex index_;
  uint64_t offset_ = 0;
  FactsFooter footer_;
};

// Finds rows in any order, fast in one that is nearly the file's. Memory: the index, and a few MiB.
class SourceFactsReader {
 public:
  // ENOENT: there are none. EIO: they do not check.
  static Result<std::unique_ptr<SourceFactsReader>> Open(Env& env, const std::string& path);
  const ObjectId& manifest() const { return footer_.manifest; }
  // Whether no repair of the library came between: one may have lost what these facts take for there.
  bool IsOf(uint64_t made_in) const { return footer_.made_in == static_cast<uint32_t>(made_in); }
  const FingerprintKey& key() const { return footer_.key; }
  const std::vector<FactsFilesystem>& filesystems() const { return index_.filesystems; }
  // Nothing: the path has no row, or its block does not check.
  std::optional<SourceFile> Find(std::string_view path);
  // Every block. EIO: which does not check.
  Status Check();

 private:
  SourceFactsReader() = default;
  Result<std::vector<FactsRow>> ReadBlock(size_t number) const;
  struct Cached {
    size_t number;
    std::vector<FactsRow> rows;
  };
  std::unique_ptr<File> file_;
  FactsIndex index_;
  FactsFooter footer_;
  std::vector<Cached> cache_;  // the last used one first
};

std::string SourceFactsPath(const std::string& library_path, const std::string& branch);

// Sentences, one for each file that does not check; with `remove` they are gone.
std::vector<std::string> CheckSourceFacts(Env& env, const std::string& library_path, bool remove);
// Removes those of branches that `exists` does not know.
void SweepSourceFacts(Env& env, const std::string& library_path,
                      const std::function<bool(const std::string& branch)>& exists);

}  // namespace mirage

// What an import knows of its source's files from the import before, and what the next one will know of them
// (store/source_facts.h). Not thread-safe.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "indexer/entry_spool.h"
#include "indexer/exclusion.h"
#include "indexer/image_source.h"
#include "indexer/path_spool.h"
#include "store/library.h"
#include "store/tree_reader.h"

namespace mirage {

class KnownFiles {
 public:
  // `branches`: whose facts are looked for; the first that has some of a version whose contents are still there gives
  // them. None: every file is read, and the facts are kept all the same.
  KnownFiles(Library& library, const Transaction& transaction, const std::vector<std::string>& branches);
  ~KnownFiles();

  // Of the fingerprints, those of the version before and those to come.
  const FingerprintKey& key() const { return key_; }

  std::optional<uint32_t> AddFilesystem(SourceFilesystem filesystem);
  // An entry of the version before, and of a regular file the fingerprint. All its contents are in the library.
  struct Known {
    Entry entry;
    Fingerprint fingerprint;
  };
  // Notes the facts. What the path was, if all says that this is the same; of a directory without what is in it.
  std::optional<Known> Find(const std::string& path, const Entry& now, uint64_t size, const FileFacts& facts);
  // What the path was, if it was a regular file of this size whose fingerprint is known.
  std::optional<Known> OfSize(const std::string& path, uint64_t size);

  // Writes the facts of those entries that are in the version. Whatever fails here costs the next import time, nothing else.
  // May run on a thread beside who reads `entries`.
  void Write(EntrySpool& entries, const Exclusion& exclusion);
  // Once the version is there.
  void Keep(const std::string& branch, const ObjectId& manifest);

 private:
  struct Filesystem {
    SourceFilesystem source;
    int64_t newest_sec = INT64_MIN;  // ctime
    std::optional<uint32_t> before;  // which of the last import's it is
  };
  bool Open(const std::string& branch);
  Status TryWrite(EntrySpool& entries, const Exclusion& exclusion);
  bool IsTrusted(const FactsFilesystem& filesystem, const Entry& now, const FileFacts& facts) const;
  const SourceFile* Row(const std::string& path);  // of the version before
  std::optional<Entry> Lookup(const std::string& path);

  Library& library_;
  const Transaction& transaction_;
  PathSpool noted_;
  bool failed_ = false;  // facts could not be noted
  std::vector<Filesystem> filesystems_;
  // Of the version before.
  std::unique_ptr<SourceFactsReader> facts_;
  std::optional<VersionLease> lease_;
  std::optional<TreeReader> reader_;
  FingerprintKey key_;
  std::optional<std::string> row_path_;  // whose row was looked for last, and what was found
  std::optional<SourceFile> row_;
  Entry root_;
  std::optional<std::string> directory_;  // the last one that was looked in, and its tree; zero: there is none
  ObjectId directory_tree_;

  std::unique_ptr<SourceFactsWriter> writer_;  // of facts that are all written
};

}  // namespace mirage

// A fresh library, and versions made of a few files, for tests that need one but are not about how it is filled.
#pragma once

#include <gtest/gtest.h>

#include <map>

#include "store/library.h"
#include "store/tree_reader.h"
#include "store/tree_writer.h"
#include "tests/testing/temporary_directory.h"

namespace mirage::testing {

// Unwraps a Result or fails the test with its message.
template <typename T>
T Must(Result<T> result) {
  if (!result) {
    ADD_FAILURE() << result.error().message;
    throw std::runtime_error(result.error().message);
  }
  return std::move(*result);
}
inline void Must(Status status) {
  if (!status) {
    ADD_FAILURE() << status.error().message;
    throw std::runtime_error(status.error().message);
  }
}

// Stages a flat tree {name: content}; its root.
inline Result<Entry> StageTree(Transaction& transaction, const std::map<std::string, std::string>& files) {
  std::map<std::string, Entry> entries;
  for (const auto& [name, bytes] : files) {
    Entry& entry = entries[name];
    entry.mode = 0644;
    const Status put = transaction.contents().Put(bytes, [&entry](const ObjectId& id, uint64_t size) {
      entry.id = id;
      entry.size = size;
    });
    if (!put) {
      (void)transaction.contents().Flush();  // its thread fills the entries
      return tl::make_unexpected(put.error());
    }
  }
  TRY(transaction.contents().Flush());
  TreeWriter tree(transaction);
  Entry root;
  root.type = FileType::kDirectory;
  root.mode = 0755;
  TRY(tree.Add("", root));
  for (const auto& [name, entry] : entries) TRY(tree.Add(name, entry));
  return tree.Finish();
}

// Publishes a flat version on `branch` of `library`; "" as the tag: the next vN.
inline Result<Published> PublishFiles(const std::shared_ptr<Library>& library, const std::string& branch,
                                      const std::map<std::string, std::string>& files, const std::string& tag = "") {
  ASSIGN_OR_RETURN(const auto transaction, library->Begin("import"));
  NewVersion version;
  ASSIGN_OR_RETURN(version.manifest.root, StageTree(*transaction, files));
  version.manifest.branch = branch;
  version.tag = tag;
  ASSIGN_OR_RETURN(const auto head, library->snapshot()->Branch(branch));
  if (head) {
    version.expected_head = head->manifest;
    version.manifest.parents = {head->manifest};
  }
  return transaction->Publish(std::move(version));
}

class LibraryTest : public ::testing::Test {
 protected:
  LibraryTest() {
    Must(Library::Create(path(), {}));
    library_ = Must(Library::Open(path(), {}));
  }
  std::string path() const { return directory_ / "library"; }

  static Result<Published> Publish(const std::shared_ptr<Library>& library, const std::string& branch,
                                   const std::map<std::string, std::string>& files, const std::string& tag = "") {
    return PublishFiles(library, branch, files, tag);
  }

  TemporaryDirectory directory_;
  std::shared_ptr<Library> library_;
};

}  // namespace mirage::testing

// A library beside a plain map that says what it must say. One decoder turns bytes into operations on both, for the seeded test and
// for a fuzzer alike: any bytes are a run.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "tests/testing/fault_env.h"
#include "tests/testing/world.h"

namespace mirage::testing {

// Operations: publish (edits of a branch's files; now and then one file of several chunks), tag, delete a tag, make a branch, delete one,
// diff two refs, read all, reopen, refresh, a crash in the middle of a publish (with and without the power), a full disk
// in the middle of one, gc with and without compaction, a crash in the middle of that.
class LibraryModel {
 public:
  // An empty library in `directory`, which is empty.
  explicit LibraryModel(const std::string& directory);
  ~LibraryModel();
  // Runs the operations that `bytes` say, then compares all and checks the library. "" or the first difference.
  std::string Run(std::string_view bytes);
  // What was done so far, one line each: for a failure's message.
  const std::string& story() const { return story_; }

 private:
  class Input;
  struct Edit {
    std::string branch;
    Files files;
  };
  void Say(std::string line) { story_ += line + "\n"; }
  std::string PickRef(Input& in, bool tag) const;
  Edit NextEdit(Input& in) const;
  Status Step(Input& in);
  Status Publish(Input& in);
  Status MoveTag(Input& in);
  Status DeleteTag(Input& in);
  Status MakeBranch(Input& in);
  Status DeleteBranch(Input& in);
  Status Diff(Input& in);
  Status Crash(Input& in);
  Status FullDisk(Input& in);
  Status Collect(Input& in);
  Status Compare();
  Status Reopen();
  void Published(const Edit& edit);
  Result<ObjectId> Target(const std::string& ref) const;

  FaultEnv env_;
  std::string path_, story_;
  std::shared_ptr<Library> library_;
  World world_;
  std::map<std::string, uint64_t> highest_;  // the greatest N of a vN ever given on a branch
};

}  // namespace mirage::testing

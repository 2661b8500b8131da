// A small version, an overlay above it, and a model that every operation is made on too.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>

#include "mirfs/branch_fs.h"
#include "mirfs/committer.h"
#include "tests/mirfs/model_tree.h"
#include "tests/testing/store_fixture.h"

namespace mirage {

using testing::ModelTree;
using testing::Must;
using testing::PathFs;

constexpr size_t kBigBytes = 600 << 10;  // more than is copied whole

inline std::string Pattern(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::string bytes(size, '\0');
  for (auto& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

class BranchFsTest : public testing::LibraryTest {
 protected:
  BranchFsTest() {
    for (const char* directory : {"etc", "etc/init", "home", "home/deep", "home/deep/er", "empty"}) {
      Make(directory, FileType::kDirectory, 0755);
    }
    for (const char* file : {"etc/passwd", "etc/init/a", "etc/init/b", "home/deep/er/x", "home/big"}) {
      Make(file, FileType::kRegular, 0644);
    }
    model_.Write("etc/passwd", 0, "root:x:0:0\n");
    model_.Write("etc/init/a", 0, "start a\n");
    model_.Write("etc/init/b", 0, Pattern(5000, 1));
    model_.Write("home/deep/er/x", 0, "deep\n");
    model_.Write("home/big", 0, Pattern(kBigBytes, 2));
    model_.SetXattr("etc/passwd", "user.base", "value");
    Make("etc/link", FileType::kSymlink, 0777, "passwd");
    Make("home/fifo", FileType::kFifo, 0600);
    model_.Link("etc/init/b", "home/deep/b-too");
    model_.Link("etc/init/b", "home/deep/er/b-three");
    base_ = Must(model_.Publish(library_, "main")).manifest;
    overlay_ = Must(Overlay::Create(*library_, {.branch = "main", .mountpoint = "/mnt", .limits = limits_}));
    Open();
  }
  void Make(const std::string& path, FileType type, uint16_t mode, const std::string& target = "") {
    ASSERT_EQ(0, model_.Make(path, type, mode, target));
  }
  void Open() {
    fs_ = Must(BranchFs::Open(library_, *overlay_));
    paths_.emplace(*fs_);
  }
  void CloseFs() {
    paths_.reset();
    fs_.reset();
  }
  void Reopen() {
    CloseFs();
    const std::string id = overlay_->info().id;
    overlay_.reset();
    overlay_ = Must(Overlay::Open(*library_, id, limits_));
    Open();
  }
  // Goes on with a copy of the overlay as it is on the disk now, which is what a killed daemon leaves.
  void Crash() { GoOnWith(CopyOverlay()); }
  // The database's files by itself, whose thread may be at work on them, or as they lie there.
  enum class Database { kCopiesItself, kAsItLies };
  std::string CopyOverlay(Database database = Database::kCopiesItself) {
    std::string id = "c0ffee" + std::to_string(crashes_++);
    const std::string to = library_->overlays_path() + "/" + id;
    std::filesystem::create_directory(to);
    for (const auto& entry : std::filesystem::directory_iterator(overlay_->path())) {
      if (entry.path().filename() == "db" && database == Database::kCopiesItself) continue;
      std::filesystem::copy(entry.path(), std::filesystem::path(to) / entry.path().filename(), std::filesystem::copy_options::recursive);
    }
    if (database == Database::kCopiesItself) Must(overlay_->db().CopyTo(to + "/db"));
    return id;
  }
  void GoOnWith(const std::string& id) {
    CloseFs();
    Must(overlay_->Remove());
    overlay_ = Must(Overlay::Open(*library_, id, limits_));
    Open();
  }
  std::optional<Published> Commit(const CommitOptions& options = {}) {
    CloseFs();
    Must(overlay_->MarkUnmounted(true));
    const auto overlay = std::move(overlay_);
    return Must(CommitOverlay(*library_, *overlay, options));
  }
  void ExpectEqual() {
    EXPECT_EQ("", paths_->DifferenceFrom(model_));
  }
  void ExpectCommitEqual() {
    ExpectEqual();
    Reopen();
    ExpectEqual();
    const auto published = Commit();
    ASSERT_TRUE(published);
    EXPECT_EQ("", model_.DifferenceFrom(library_, published->manifest));
    EXPECT_EQ(std::vector{base_}, Must(ReadManifest(library_->objects(), published->manifest)).parents);
    EXPECT_TRUE(Must(ListOverlays(*library_)).empty());
  }

// The same operation on both.
#define BOTH(operation)                                 \
  do {                                                  \
    const int model_answer = model_.operation;          \
    EXPECT_EQ(model_answer, paths_->operation) << #operation; \
  } while (false)

  ModelTree model_;
  ObjectId base_;
  std::unique_ptr<Overlay> overlay_;
  std::unique_ptr<BranchFs> fs_;
  std::optional<PathFs> paths_;
  int crashes_ = 0;
  RowStore::Limits limits_;
};

}  // namespace mirage

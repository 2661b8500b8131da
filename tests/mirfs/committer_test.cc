// CommitOverlay: what becomes of an overlay when the branch moved, the tag is taken, nothing changed, or paths are excluded.
#include "mirfs/committer.h"

#include <gtest/gtest.h>

#include "mirfs/branch_fs.h"
#include "store/diff.h"
#include "tests/mirfs/model_tree.h"
#include "tests/testing/store_fixture.h"

namespace mirage {
namespace {

using testing::ModelTree;
using testing::Must;
using testing::PathFs;

class CommitterTest : public testing::LibraryTest {
 protected:
  CommitterTest() {
    for (const char* directory : {"etc", "var", "var/cache"}) model_.Make(directory, FileType::kDirectory, 0755);
    for (const char* file : {"etc/hosts", "var/cache/old"}) {
      model_.Make(file, FileType::kRegular, 0644);
      model_.Write(file, 0, file);
    }
    base_ = Must(model_.Publish(library_, "main"));
  }
  std::unique_ptr<Overlay> NewOverlay(const std::string& tag = "") {
    return Must(Overlay::Create(*library_, {.branch = "main", .mountpoint = "/mnt", .message = "edit", .tag = tag}));
  }
  // An overlay in which `path` says `bytes`, unmounted.
  std::unique_ptr<Overlay> Edited(const std::string& path, const std::string& bytes, const std::string& tag = "") {
    auto overlay = NewOverlay(tag);
    auto fs = Must(BranchFs::Open(library_, *overlay));
    PathFs paths(*fs);
    if (!paths.Stat(path)) {
      EXPECT_EQ(0, paths.Make(path, FileType::kRegular, 0644));
    }
    EXPECT_EQ(0, paths.Write(path, 0, bytes));
    Must(fs->Close());
    Must(overlay->MarkUnmounted(true));
    return overlay;
  }
  Result<std::optional<Published>> CommitAndLetGo(std::unique_ptr<Overlay> overlay, const CommitOptions& options,
                                                  ExcludedPaths* excluded = nullptr) {
    return CommitOverlay(*library_, *overlay, options, excluded);
  }
  OverlayInfo Only() {
    const auto overlays = Must(ListOverlays(*library_));
    EXPECT_EQ(1U, overlays.size());
    return overlays.at(0);
  }

  ModelTree model_;
  Published base_;
};

TEST_F(CommitterTest, MakesTheNextVersion) {
  auto overlay = Edited("etc/hosts", "new text\n");
  const std::string id = overlay->info().id;
  EXPECT_TRUE(Only().mounted);
  EXPECT_EQ(EBUSY, CommitOverlay(*library_, id, {}).error().code);
  EXPECT_EQ(EBUSY, DiscardOverlay(*library_, id).error().code);
  overlay.reset();
  EXPECT_FALSE(Only().mounted);
  EXPECT_EQ(OverlayInfo::kUnmounted, Only().state);
  const auto published = Must(CommitOverlay(*library_, id, {.author = "me"}));
  ASSERT_TRUE(published);
  EXPECT_EQ("v2", published->tag);
  model_.Write("etc/hosts", 0, "new text\n");
  EXPECT_EQ("", model_.DifferenceFrom(library_, published->manifest));
  const auto manifest = Must(ReadManifest(library_->objects(), published->manifest));
  EXPECT_EQ("edit", manifest.message);
  EXPECT_EQ("me", manifest.author);
  EXPECT_TRUE(Must(ListOverlays(*library_)).empty());
  EXPECT_EQ(ENOENT, CommitOverlay(*library_, id, {}).error().code);
}

TEST_F(CommitterTest, NothingChangedMakesNoVersion) {
  auto overlay = NewOverlay();
  Must(Must(BranchFs::Open(library_, *overlay))->Close());
  EXPECT_FALSE(Must(CommitAndLetGo(std::move(overlay), {})));
  EXPECT_TRUE(Must(ListOverlays(*library_)).empty());
}

TEST_F(CommitterTest, TheSecondOfTwoIsMergedWhenTheirChangesDoNotTouch) {
  auto first = Edited("etc/first", "1"), second = Edited("etc/second", "2");
  const auto one = Must(CommitAndLetGo(std::move(first), {}));
  const std::string path = second->path(), copy = directory_ / "copy", id = second->info().id;
  ASSERT_EQ(0, std::system(fmt::format("cp -a '{}' '{}'", path, copy).c_str()));
  const auto two = Must(CommitAndLetGo(std::move(second), {.message = "second"}));
  ASSERT_TRUE(one && two);
  for (const char* file : {"etc/first", "etc/second"}) {
    model_.Make(file, FileType::kRegular, 0644);
    model_.Write(file, 0, file == std::string("etc/first") ? "1" : "2");
  }
  EXPECT_EQ("", model_.DifferenceFrom(library_, two->manifest));
  const auto merged = Must(ReadManifest(library_->objects(), two->manifest));
  EXPECT_EQ(std::vector{one->manifest}, merged.parents);
  EXPECT_EQ("second", merged.message);
  EXPECT_EQ("edit of main/v1, merged onto main/v2", merged.source);
  const auto base = Must(ReadManifest(library_->objects(), base_.manifest));
  EXPECT_EQ(base.file_count + 2, merged.file_count);
  EXPECT_EQ(base.total_bytes + 2, merged.total_bytes);
  EXPECT_TRUE(Must(ListOverlays(*library_)).empty());
  // Published, but the process died before the overlay was removed: it is not made twice.
  ASSERT_EQ(0, std::system(fmt::format("cp -a '{}' '{}'", copy, path).c_str()));
  EXPECT_EQ(two->manifest, Must(CommitOverlay(*library_, id, {}))->manifest);
}

TEST_F(CommitterTest, ASideCanBeTakenWhereTwoConflict) {
  for (const auto favor : {MergeFavor::kOurs, MergeFavor::kTheirs}) {
    const std::string name = favor == MergeFavor::kOurs ? "1" : "2";
    auto first = Edited("etc/hosts", name + "head"), second = Edited("etc/hosts", name + "edit");
    ASSERT_TRUE(Must(CommitAndLetGo(std::move(first), {})));
    const std::string id = second->info().id;
    EXPECT_EQ(EAGAIN, CommitAndLetGo(std::move(second), {}).error().code);
    EXPECT_EQ(std::vector<std::string>{"/etc/hosts: both changed its content"}, Only().conflicts);
    const auto version = Must(CommitOverlay(*library_, id, {.favor = favor}));
    ASSERT_TRUE(version);
    const TreeReader reader(library_);
    const Manifest manifest = Must(ReadManifest(library_->objects(), version->manifest));
    std::string bytes;
    Must(reader.Read(Must(reader.Find(manifest.root, "etc/hosts")), 0, 5, &bytes));
    EXPECT_EQ(favor == MergeFavor::kOurs ? "1head" : "2edit", bytes);
  }
}

TEST_F(CommitterTest, WhatWouldBeCommittedCanBeSeenBefore) {
  auto overlay = Edited("etc/new", "1");
  const auto lines = [&](const Overlay& seen) {
    const auto staged = Must(StagedOverlay::Stage(*library_, seen));
    const TreeReader reader(library_, staged->objects());
    std::string text;
    Must(DiffVersions(reader, staged->base(), staged->manifest(), "", [&](const Change& change) -> Status {
      text += fmt::format("{} {}\n", static_cast<char>(change.kind), change.path);
      return {};
    }));
    return text;
  };
  EXPECT_EQ("m etc\nA etc/new\n", lines(*overlay));
  const std::string copy = Must(overlay->MakeView());
  {
    const auto view = Must(Overlay::OpenView(*library_, overlay->info().id, copy));
    EXPECT_EQ("m etc\nA etc/new\n", lines(*view));
  }
  EXPECT_FALSE(library_->env().Stat(copy));
  EXPECT_TRUE(Must(CommitAndLetGo(std::move(overlay), {})));
}

TEST_F(CommitterTest, TheSecondOfTwoIsKeptAndBecomesABranch) {
  auto first = Edited("etc/second", "1"), second = Edited("etc/second", "2");
  const std::string id = second->info().id;
  ASSERT_TRUE(Must(CommitAndLetGo(std::move(first), {})));
  const auto refused = CommitAndLetGo(std::move(second), {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(EAGAIN, refused.error().code);
  EXPECT_NE(std::string::npos, refused.error().message.find("mirage overlay commit " + id + " --to NEWBRANCH"));
  EXPECT_EQ(OverlayInfo::kConflict, Only().state);
  EXPECT_EQ(refused.error().message, Only().error);
  EXPECT_EQ(EEXIST, CommitOverlay(*library_, id, {.to_branch = "main"}).error().code);
  const auto branch = Must(CommitOverlay(*library_, id, {.to_branch = "other"}));
  ASSERT_TRUE(branch);
  EXPECT_EQ("other", branch->branch);
  model_.Make("etc/second", FileType::kRegular, 0644);
  model_.Write("etc/second", 0, "2");
  EXPECT_EQ("", model_.DifferenceFrom(library_, branch->manifest));
  EXPECT_EQ(std::vector{base_.manifest}, Must(ReadManifest(library_->objects(), branch->manifest)).parents);
}

// Another's lock was waited for in vain: that asks for no decision, and the next mount tries again.
TEST_F(CommitterTest, ABusyLibraryIsNoConflict) {
  Must(WriteFileAtomically(Env::Default(), path() + "/mirage.yaml", "lock_timeout_ms: 50\n"));
  library_ = Must(Library::Open(path(), {}));
  auto overlay = Edited("etc/hosts", "x");
  const std::string id = overlay->info().id;
  Must(model_.Publish(Must(Library::Open(path(), {})), "other"));
  {
    const auto lock = Must(FileLock::Acquire(Env::Default(), path() + "/locks/publish", LockMode::kExclusive, 0, "test"));
    const auto refused = CommitAndLetGo(std::move(overlay), {});
    ASSERT_FALSE(refused);
    EXPECT_EQ(EBUSY, refused.error().code);
    EXPECT_NE(std::string::npos, refused.error().message.find("try again: mirage overlay commit " + id));
  }
  EXPECT_EQ(OverlayInfo::kUnmounted, Only().state);
  EXPECT_TRUE(Must(CommitOverlay(*library_, id, {})));
}

TEST_F(CommitterTest, ATakenTagKeepsTheOverlay) {
  auto overlay = Edited("etc/hosts", "x", "v1");
  const std::string id = overlay->info().id;
  const auto refused = CommitAndLetGo(std::move(overlay), {.message = "said now"});
  ASSERT_FALSE(refused);
  EXPECT_EQ(EEXIST, refused.error().code);
  EXPECT_NE(std::string::npos, refused.error().message.find("mirage overlay commit " + id));
  EXPECT_EQ(OverlayInfo::kUnmounted, Only().state);
  EXPECT_EQ("said now", Only().message);
  const auto published = Must(CommitOverlay(*library_, id, {.tag = "free"}));
  EXPECT_EQ("free", published->tag);
}

TEST_F(CommitterTest, ACommitThatWasPublishedButNotRemovedIsNotMadeTwice) {
  auto overlay = Edited("etc/hosts", "x");
  const std::string id = overlay->info().id, path = overlay->path(), copy = directory_ / "copy";
  overlay.reset();
  const auto copy_all = [](const std::string& from, const std::string& to) {  // with times
    return std::system(fmt::format("cp -a '{}' '{}'", from, to).c_str());
  };
  ASSERT_EQ(0, copy_all(path, copy));
  const auto first = Must(CommitOverlay(*library_, id, {}));
  ASSERT_EQ(0, copy_all(copy, path));
  const auto again = Must(CommitOverlay(*library_, id, {}));
  ASSERT_TRUE(again);
  EXPECT_EQ(first->manifest, again->manifest);
  EXPECT_EQ(first->tag, again->tag);
  EXPECT_TRUE(Must(ListOverlays(*library_)).empty());
}

TEST_F(CommitterTest, ExcludedPathsStayAsTheyWereAndAreNamed) {
  Must(WriteFileAtomically(Env::Default(), path() + "/mirage.yaml", "exclude: [\"/var/cache/*\"]\n"));
  library_ = Must(Library::Open(path(), {}));
  auto overlay = NewOverlay();
  auto fs = Must(BranchFs::Open(library_, *overlay));
  PathFs paths(*fs);
  EXPECT_EQ(0, paths.Make("var/cache/new", FileType::kRegular, 0644));
  EXPECT_EQ(0, paths.Unlink("var/cache/old"));
  EXPECT_EQ(0, paths.Make("var/kept", FileType::kRegular, 0644));
  fs.reset();
  ExcludedPaths excluded;
  const auto published = Must(CommitAndLetGo(std::move(overlay), {}, &excluded));
  ASSERT_TRUE(published);
  model_.Make("var/kept", FileType::kRegular, 0644);
  EXPECT_EQ("", model_.DifferenceFrom(library_, published->manifest));
  EXPECT_EQ(2u, excluded.count);
  EXPECT_EQ((std::vector<std::string>{"/var/cache/new", "/var/cache/old"}), excluded.shown);
  excluded.count = 21;
  std::string said;
  excluded.Say([&](std::string_view line) { said += std::string(line) + "\n"; });
  EXPECT_EQ("not committed, excluded by mirage.yaml: 21 paths\n  /var/cache/new\n  /var/cache/old\n  ...\n", said);
}

TEST_F(CommitterTest, AnExcludedNameIsNoLinkToWhatWasChanged) {
  EXPECT_EQ(0, model_.Link("etc/hosts", "var/cache/hosts"));
  EXPECT_EQ(0, model_.Link("etc/hosts", "etc/also"));
  Must(model_.Publish(library_, "main"));
  Must(WriteFileAtomically(Env::Default(), path() + "/mirage.yaml", "exclude: [\"/var/cache/*\"]\n"));
  library_ = Must(Library::Open(path(), {}));
  auto overlay = Edited("etc/also", "changed");
  const auto published = Must(CommitAndLetGo(std::move(overlay), {}));
  ASSERT_TRUE(published);
  EXPECT_EQ(0, model_.Unlink("var/cache/hosts"));
  EXPECT_EQ(0, model_.Make("var/cache/hosts", FileType::kRegular, 0644));
  model_.Write("var/cache/hosts", 0, "etc/hosts");
  model_.Write("etc/also", 0, "changed");
  EXPECT_EQ("", model_.DifferenceFrom(library_, published->manifest));
}

// A commit reads data that was never synced to the overlay's disk. Should the machine stop in it, the data may be gone.
TEST_F(CommitterTest, AnUnsyncedUnmountHoldsUntilTheMachineStops) {
  auto overlay = Edited("etc/hosts", "x");
  Must(overlay->MarkUnmounted(/*data_synced=*/false));
  const std::string path = overlay->path();
  const std::string boot = overlay->info().boot;
  ASSERT_FALSE(boot.empty());
  overlay.reset();
  EXPECT_EQ(OverlayInfo::kUnmounted, Only().state);
  std::string record = Must(ReadWholeFile(Env::Default(), path + "/overlay.json", 1 << 20));
  record.replace(record.find(boot), boot.size(), "another run of the machine");
  Must(WriteFileAtomically(Env::Default(), path + "/overlay.json", record));
  EXPECT_EQ(OverlayInfo::kActive, Only().state);
  overlay = Must(Overlay::Open(*library_, Only().id));
  Must(overlay->MarkMounted("/mnt"));
  Must(overlay->MarkUnmounted(/*data_synced=*/true));
  EXPECT_EQ(OverlayInfo::kUnmounted, Only().state);
  EXPECT_EQ("", Only().boot);
}

TEST_F(CommitterTest, TheNextOverlayRemovesWhatIsLeftOfOthers) {
  auto overlay = Edited("etc/hosts", "x");
  const std::string path = overlay->path(), gone = path + ".gone";
  Must(overlay->Retire());
  EXPECT_TRUE(Must(ListOverlays(*library_)).empty());
  auto other = NewOverlay();
  EXPECT_TRUE(std::filesystem::exists(gone + "/data"));  // its owner lives
  Must(other->Remove());
  ASSERT_EQ(0, std::system(fmt::format("cp -a '{}' '{}.copy'", gone, path).c_str()));
  overlay.reset();
  EXPECT_FALSE(std::filesystem::exists(gone));
  ASSERT_EQ(0, std::rename((path + ".copy").c_str(), gone.c_str()));
  other = NewOverlay();
  EXPECT_FALSE(std::filesystem::exists(gone));
}

TEST_F(CommitterTest, DiscardRemovesEverything) {
  auto overlay = Edited("etc/hosts", "x");
  const std::string id = overlay->info().id;
  overlay.reset();
  EXPECT_EQ(id, Must(FindOverlay(*library_, id.substr(0, 4))).id);
  Must(DiscardOverlay(*library_, id));
  EXPECT_TRUE(Must(ListOverlays(*library_)).empty());
  EXPECT_EQ(ENOENT, DiscardOverlay(*library_, id).error().code);
  EXPECT_EQ(ENOENT, DiscardOverlay(*library_, "../packs").error().code);
}

}  // namespace
}  // namespace mirage

// The directories below MOUNT/.mirage/diff/A..B. For VersionsFs alone.
#pragma once

#include "mirfs/versions_fs.h"

namespace mirage {

// Two versions and what of them is shown. Its parts, by index: added, modified (of the second), removed (of the first).
struct VersionsFs::DeltaView {
  static constexpr std::array<std::string_view, 3> kParts = {"added", "modified", "removed"};
  std::string text;  // "A..B"
  std::array<std::shared_ptr<const MountedVersion>, 3> versions;
  std::array<Entry, 3> roots;  // of the version the part shows
};

// kDelta: the directory of the three parts. kDeltaPart: a directory of which some belongs to the part.
struct VersionsFs::DeltaInode final : DirectoryInode {
  std::shared_ptr<const DeltaView> view;
  size_t part = 0;  // index in kParts
  ObjectId other;   // kDeltaPart: the tree at this path in the version it is compared with

  DeltaPart kind_of_part() const { return part == 1 ? DeltaPart::kModified : DeltaPart::kAdded; }
  bool SameObject(const Inode& that) const override {
    if (!DirectoryInode::SameObject(that)) return false;
    const auto& delta = static_cast<const DeltaInode&>(that);
    return part == delta.part && other == delta.other && view->text == delta.view->text &&
           view->roots == delta.view->roots;
  }
};

}  // namespace mirage

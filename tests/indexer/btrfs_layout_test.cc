#include "indexer/btrfs_layout.h"

#include <gtest/gtest.h>

namespace mirage::testing {
namespace {

BtrfsLayout::Volume Volume(uint64_t standard, std::vector<std::string> aliases = {}) {
  BtrfsLayout::Volume volume;
  volume.paths = {{5, ""}, {256, "@"}, {257, "@home"}, {258, "@/nested"}, {259, "old"}, {260, "@/nested/deep"}};
  volume.standard = standard;
  volume.aliases = std::move(aliases);
  return volume;
}

TEST(BtrfsLayoutTest, OptionsNameASubvolume) {
  const BtrfsLayout layout({{"/dev/sda2", Volume(5)}, {"/dev/vg/root", Volume(256)}, {"/dev/sdb", {}}});
  EXPECT_EQ(layout.Resolve("/dev/sda1", "subvol=@"), "/dev/sda1");
  EXPECT_EQ(layout.Resolve("/dev/sda2", ""), "/dev/sda2");
  EXPECT_EQ(layout.Resolve("/dev/sda2", "subvolid=257"), "btrfsvol:/dev/sda2/@home");
  EXPECT_EQ(layout.Resolve("/dev/sda2", "ro,subvolid=0x101,noatime"), "btrfsvol:/dev/sda2/@home");
  EXPECT_EQ(layout.Resolve("/dev/sda2", "subvolid=999"), "btrfsvol:/dev/sda2/subvolid=999");
  EXPECT_EQ(layout.Resolve("/dev/sda2", "subvolid=none"), "/dev/sda2");
  EXPECT_EQ(layout.Resolve("btrfsvol:/dev/sda2//@home", "subvol=/@home,subvolid=257"), "btrfsvol:/dev/sda2/@home");
  EXPECT_EQ(layout.Resolve("btrfsvol:/dev/sda2/@//nested/", ""), "btrfsvol:/dev/sda2/@/nested");
  // By neither: the default subvolume; the top level by its number, by 0 and by "/".
  EXPECT_EQ(layout.Resolve("/dev/vg/root", "noatime"), "btrfsvol:/dev/vg/root/@");
  for (const char* top : {"subvolid=5", "subvolid=0", "subvol=/"})
    EXPECT_EQ(layout.Resolve("/dev/vg/root", top), "/dev/vg/root");
  EXPECT_EQ(layout.Resolve("btrfsvol:/dev/vg/root/@home", ""), "btrfsvol:/dev/vg/root/@home");
  // One that could not be looked into.
  EXPECT_EQ(layout.Resolve("/dev/sdb", "subvolid=257"), "/dev/sdb");
}

TEST(BtrfsLayoutTest, AnotherOrderOfDisksIsUndone) {
  // The kernel's sda is libguestfs's sdb, and the other way round.
  const BtrfsLayout swapped({{"/dev/sda2", Volume(5, {"/dev/sdb2"})}, {"/dev/sdb2", Volume(256, {"/dev/sda2"})}});
  EXPECT_EQ(swapped.Root("btrfsvol:/dev/sdb2/@"), "btrfsvol:/dev/sda2/@");
  EXPECT_EQ(swapped.Root("/dev/sdb2"), "/dev/sdb2");  // only subvolumes are named so
  EXPECT_EQ(swapped.Resolve("btrfsvol:/dev/sda2/@home", ""), "btrfsvol:/dev/sdb2/@home");
  EXPECT_EQ(swapped.Resolve("/dev/sda2", "subvolid=257"), "btrfsvol:/dev/sda2/@home");
  EXPECT_EQ(swapped.NotMounted({"btrfsvol:/dev/sda2/@"}).size(), 1u);
  EXPECT_TRUE(swapped.NotMounted({"btrfsvol:/dev/sda2/@"}).contains("/dev/sda2"));
  // The appliance's own disk came first: there is no sdb but in those names.
  const BtrfsLayout moved({{"/dev/sda2", Volume(5, {"/dev/sdb2"})}});
  EXPECT_EQ(moved.Root("btrfsvol:/dev/sdb2/@"), "btrfsvol:/dev/sda2/@");
  // A libguestfs that gives its own names.
  EXPECT_EQ(moved.Root("btrfsvol:/dev/sda2/@"), "btrfsvol:/dev/sda2/@");
}

TEST(BtrfsLayoutTest, WhatNoMountShows) {
  const BtrfsLayout layout({{"/dev/sda2", Volume(5)}});
  const auto left = [&](const std::vector<std::string>& mounted) {
    const auto found = layout.NotMounted(mounted);
    return found.empty() ? "" : found.at("/dev/sda2");
  };
  EXPECT_EQ(left({"/dev/sda1"}), "");  // nothing of it is mounted: said elsewhere
  EXPECT_EQ(left({"/dev/sda2"}), "");
  EXPECT_EQ(left({"btrfsvol:/dev/sda2/@", "btrfsvol:/dev/sda2/@home"}), "the top level, old");
  EXPECT_EQ(left({"btrfsvol:/dev/sda2/@home"}), "the top level, @, @/nested, old, @/nested/deep");
  EXPECT_EQ(left({"btrfsvol:/dev/sda2/@/nested"}), "the top level, @, @home, old");
}

}  // namespace
}  // namespace mirage::testing

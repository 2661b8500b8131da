#include "mirfs/inode_table.h"

#include <gtest/gtest.h>

namespace mirage {
namespace {

std::shared_ptr<Inode> Leaf(uint64_t number, uint64_t identity) {
  auto inode = std::make_shared<Inode>();
  inode->number = number;
  inode->identity = identity;
  return inode;
}

TEST(InodeTable, CountsLookups) {
  InodeTable table;
  const NodeId node = table.Acquire(77, Leaf(77, 1), 1);
  EXPECT_EQ(node, 77u);
  EXPECT_EQ(table.Acquire(77, Leaf(77, 1), 1), node);
  table.Release(node, 1);
  EXPECT_NE(table.Find(node), nullptr);
  table.Release(node, 1);
  EXPECT_EQ(table.Find(node), nullptr);
  EXPECT_EQ(table.size(), 0u);
  table.Release(node, 5);  // a forget of what is not there is no harm
}

TEST(InodeTable, ProbesOnACollision) {
  InodeTable table;
  const NodeId first = table.Acquire(77, Leaf(77, 1), 1);
  const NodeId second = table.Acquire(77, Leaf(77, 2), 1);
  EXPECT_NE(first, second);
  EXPECT_EQ(table.Find(first)->identity, 1u);
  EXPECT_EQ(table.Find(second)->identity, 2u);
  EXPECT_EQ(table.Acquire(77, Leaf(77, 2), 1), second);
  EXPECT_EQ(table.Known(77, *Leaf(77, 2)), second);
  EXPECT_EQ(table.Known(77, *Leaf(77, 3)), 0u);
}

TEST(InodeTable, NeverGivesTheReservedNumbers) {
  InodeTable table;
  for (const NodeId preferred : {NodeId{0}, NodeId{1}, ~NodeId{0}}) {
    for (uint64_t identity = 0; identity < 4; ++identity) {
      EXPECT_GT(table.Acquire(preferred, Leaf(preferred, identity), 1), kRootNode);
    }
  }
  EXPECT_EQ(table.size(), 12u);
}

// Two versions' directories that fall on one number are two inodes, even if all their hashes agree.
TEST(InodeTable, TellsVersionsApart) {
  InodeTable table;
  auto directory = [](const std::string& tag) {
    auto version = std::make_shared<MountedVersion>();
    version->place = "b/" + tag;
    auto inode = std::make_shared<DirectoryInode>();
    inode->kind = Inode::Kind::kDirectory;
    inode->version = std::move(version);
    inode->path = "etc";
    return inode;
  };
  const NodeId one = table.Acquire(500, directory("v1"), 1);
  EXPECT_NE(table.Acquire(500, directory("v2"), 1), one);
  EXPECT_EQ(table.Acquire(500, directory("v1"), 1), one);
}

}  // namespace
}  // namespace mirage

// Data files made ahead: each is handed out once, empty, and none that nobody took is left.
#include "mirfs/data_directory.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <set>
#include <thread>
#include <vector>

#include "tests/testing/store_fixture.h"
#include "tests/testing/temporary_directory.h"

namespace mirage {
namespace {

using testing::Must;

class DataDirectoryTest : public ::testing::Test {
 protected:
  std::set<uint64_t> Files() const {
    std::set<uint64_t> inodes;
    Must(data_.Visit([&](uint64_t inode) -> Status {
      inodes.insert(inode);
      return {};
    }));
    return inodes;
  }
  testing::TemporaryDirectory directory_;
  DataDirectory data_{directory_.path()};
};

TEST_F(DataDirectoryTest, MakesNoSparesForFewFiles) {
  for (int i = 0; i < 10; ++i) {
    EXPECT_FALSE(data_.TakeSpare());
    EXPECT_EQ(0U, data_.SparesWanted());
  }
}

TEST_F(DataDirectoryTest, ASpareIsEmptyAndNew) {
  data_.AddSpares(100, 3);
  std::optional<DataDirectory::Spare> spare;
  while (!spare) spare = data_.TakeSpare();
  struct stat named {}, open {};
  ASSERT_EQ(0, ::stat(data_.PathOf(spare->inode).c_str(), &named));
  ASSERT_EQ(0, ::fstat(spare->descriptor, &open));
  EXPECT_EQ(named.st_ino, open.st_ino);
  EXPECT_EQ(0, open.st_size);
  EXPECT_EQ(0600U, open.st_mode & 07777);
  ::close(spare->descriptor);
  data_.RemoveSpares();
  EXPECT_EQ(std::set<uint64_t>{spare->inode}, Files());
}

TEST_F(DataDirectoryTest, WhatCannotBeMadeIsNotWaitedFor) {
  std::filesystem::remove(directory_.path());
  data_.AddSpares(1, 50);
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(data_.TakeSpare());
  EXPECT_FALSE(data_.Make(7));
  data_.RemoveSpares();
}

TEST_F(DataDirectoryTest, ManyTakersWhileSparesComeAndGo) {
  constexpr int kFilesEach = 2000;
  std::atomic<uint64_t> next{1};
  std::atomic<bool> done{false};
  std::vector<std::vector<uint64_t>> taken(3);
  std::vector<std::thread> takers;
  for (auto& mine : taken) {
    takers.emplace_back([&] {
      for (int i = 0; i < kFilesEach; ++i) {
        auto spare = data_.TakeSpare();
        if (!spare) {
          const uint64_t inode = next++;
          spare = {.inode = inode, .descriptor = Must(data_.Make(inode))};
        }
        ::close(spare->descriptor);
        mine.push_back(spare->inode);
        if (const uint64_t wanted = data_.SparesWanted(); wanted > 0) data_.AddSpares(next.fetch_add(wanted), wanted);
        if (i % 500 == 0) Must(data_.SyncNames());
      }
    });
  }
  std::thread remover([&] {
    while (!done) data_.RemoveSpares();
  });
  for (auto& taker : takers) taker.join();
  done = true;
  remover.join();
  data_.RemoveSpares();
  std::set<uint64_t> all;
  for (const auto& mine : taken) {
    for (const uint64_t inode : mine) EXPECT_TRUE(all.insert(inode).second) << inode;
  }
  EXPECT_EQ(all, Files());
}

}  // namespace
}  // namespace mirage

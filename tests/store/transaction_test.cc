// Contents that become durable beside the caller: what could not be synced is never published, however often it is tried.
#include "tests/testing/fault_env.h"
#include "tests/testing/memory_store.h"
#include "tests/testing/store_fixture.h"

namespace mirage {
namespace {

using testing::FaultEnv;
using testing::Must;

TEST(TransactionTest, WhatCouldNotBeMadeDurableIsNeverPublished) {
  const testing::TemporaryDirectory directory;
  const std::string path = directory / "library";
  Must(Library::Create(path, {}));
  FaultEnv env(directory.path());
  const auto library = Must(Library::Open(path, {.env = &env}));
  int struck = 0;
  for (const bool more : {false, true}) {  // given after the first part was flushed
    for (uint64_t number = 1;; ++number) {
      SCOPED_TRACE(fmt::format("operation {}{}", number, more ? ", with more" : ""));
      const auto transaction = Must(library->Begin("import"));
      Must(transaction->contents().Put(testing::RandomBytes(40'000, number), {}));
      env.FailAt(env.operations() + number, EIO);
      Status flushed = transaction->FlushContents();
      if (flushed && more) flushed = transaction->contents().Put(testing::RandomBytes(30'000, number + 1000), {});
      if (flushed) flushed = transaction->FlushContents();
      static_cast<void>(transaction->staged_bytes());  // waits
      const bool failed = env.failed();
      env.Heal();
      if (!failed) break;
      ++struck;
      for (int tries = 0; tries < 2; ++tries) {
        NewVersion version;
        version.manifest.root.type = FileType::kDirectory;
        version.manifest.root.id = HashBytes("a tree");
        version.manifest.branch = "b";
        const auto published = transaction->Publish(version);
        ASSERT_FALSE(published) << (flushed ? "flushed" : flushed.error().message);
        EXPECT_EQ(published.error().code, EIO) << published.error().message;
      }
    }
  }
  EXPECT_GE(struck, 6) << "make, write, write the trailer and sync a pack, once and twice";
  EXPECT_TRUE(Must(library->snapshot()->Branches()).empty());
}

}  // namespace
}  // namespace mirage

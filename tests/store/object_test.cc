// Ids, and the encodings of entries, xattr sets, content nodes and manifests: one value, one encoding, no other.
#include "store/object.h"

#include <thread>

#include "tests/testing/object_samples.h"
#include "tests/testing/store_fixture.h"

namespace mirage {
namespace {

using testing::Must;

TEST(ObjectId, HashesAsSha256sumDoes) {
  EXPECT_EQ(HashBytes("").Hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(HashBytes(""), kEmptyContentId);
  EXPECT_EQ(HashBytes("abc").Hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  Sha256 hash;
  hash.Update("a");
  hash.Update("bc");
  EXPECT_EQ(hash.Finish(), HashBytes("abc"));
  hash.Update("abc");  // it starts anew
  EXPECT_EQ(hash.Finish(), HashBytes("abc"));
}

TEST(ObjectId, HashesOnManyThreads) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([i] {
      const std::string bytes(static_cast<size_t>(i) * 1000, 'x');
      Sha256 hash;
      hash.Update(bytes);
      const ObjectId expected = hash.Finish();
      for (int round = 0; round < 1000; ++round) ASSERT_EQ(HashBytes(bytes), expected);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(ObjectId, Hex) {
  const ObjectId id = HashBytes("abc");
  EXPECT_EQ(ObjectId::FromHex(id.Hex()), id);
  EXPECT_FALSE(ObjectId::FromHex(id.Hex().substr(1)));
  EXPECT_FALSE(ObjectId::FromHex(id.Hex() + "0"));
  EXPECT_FALSE(ObjectId::FromHex("g" + id.Hex().substr(1)));
  EXPECT_EQ(ObjectId::FromBytes(id.view()), id);
  EXPECT_FALSE(ObjectId::FromBytes("abc"));
}

TEST(Entry, AllTypesRoundTrip) {
  for (const Entry& entry : testing::SampleEntries()) {
    const std::string bytes = EncodeEntry(entry);
    const Entry decoded = Must(DecodeEntry(bytes));
    EXPECT_EQ(decoded, entry);
    EXPECT_EQ(FileTypeFromMode(ModeBits(entry.type) | entry.mode), entry.type);
    for (size_t size = 0; size < bytes.size(); ++size) EXPECT_FALSE(DecodeEntry(bytes.substr(0, size))) << size;
    EXPECT_FALSE(DecodeEntry(bytes + '\0'));
  }
}

TEST(Entry, RefusesWhatHasAnotherEncoding) {
  const auto refused = [](auto change) {
    Entry entry = testing::SampleEntries().front();
    change(entry);
    return !DecodeEntry(EncodeEntry(entry)).has_value();
  };
  EXPECT_FALSE(refused([](Entry&) {}));
  EXPECT_TRUE(refused([](Entry& e) { e.mode = 010000; }));
  EXPECT_TRUE(refused([](Entry& e) { e.mtime_nsec = 1'000'000'000; }));
  EXPECT_TRUE(refused([](Entry& e) { e.size = 0; }));  // with an id that is not the empty content's
  EXPECT_TRUE(refused([](Entry& e) { e.id = kEmptyContentId; }));
  EXPECT_TRUE(refused([](Entry& e) { e.id = ObjectId{}; }));
  EXPECT_TRUE(refused([](Entry& e) { e.size = kMaxFileSize + 1; }));
  EXPECT_TRUE(refused([](Entry& e) { e.type = static_cast<FileType>(8); }));
  EXPECT_TRUE(refused([](Entry& e) { e.type = static_cast<FileType>(0); }));
  const auto link = [](Entry& e, std::string target) {
    e = Entry{};
    e.type = FileType::kSymlink;
    e.size = target.size();
    e.target = std::move(target);
  };
  EXPECT_FALSE(refused([&](Entry& e) { link(e, "a"); }));
  EXPECT_FALSE(refused([&](Entry& e) { link(e, std::string(255, 'a')); }));
  EXPECT_TRUE(refused([&](Entry& e) { link(e, std::string(256, 'a')); }));
  EXPECT_TRUE(refused([&](Entry& e) { link(e, std::string("a\0b", 3)); }));
}

TEST(Xattrs, RoundTripAndLimits) {
  const XattrSet set{
      {"security.selinux", std::string("system_u\0", 9)}, {"user.a", ""}, {"user.b", std::string(65536, 'b')}};
  const std::string bytes = Must(EncodeXattrs(set));
  EXPECT_EQ(Must(DecodeXattrs(bytes)), set);
  for (size_t size = 0; size < bytes.size(); size += 97) EXPECT_FALSE(DecodeXattrs(bytes.substr(0, size)));
  EXPECT_FALSE(DecodeXattrs(bytes + "x"));
  EXPECT_FALSE(EncodeXattrs({}));
  EXPECT_FALSE(EncodeXattrs({{"", "x"}}));
  EXPECT_EQ(EncodeXattrs({{"user.a", std::string(65537, 'x')}}).error().code, E2BIG);
  EXPECT_EQ(EncodeXattrs({{std::string(256, 'n'), ""}}).error().code, E2BIG);
  XattrSet large;
  for (int i = 0; i < 17; ++i) large["user." + std::to_string(i)] = std::string(65536, 'x');
  EXPECT_EQ(EncodeXattrs(large).error().code, E2BIG);
}

TEST(Xattrs, AscendingOnly) {
  std::string bytes = Must(EncodeXattrs({{"user.a", "1"}, {"user.b", "2"}}));
  const size_t a = bytes.find("user.a"), b = bytes.find("user.b");
  bytes[b + 5] = 'a';
  EXPECT_FALSE(DecodeXattrs(bytes));  // twice the same
  bytes[a + 5] = 'b';
  EXPECT_FALSE(DecodeXattrs(bytes));
}

TEST(ContentNode, RoundTripAndRules) {
  const ContentNode node{0, {{10, HashBytes("a")}, {8192, {}}, {5, HashBytes("b")}}};
  const std::string bytes = EncodeContentNode(node);
  const ContentNode decoded = Must(DecodeContentNode(bytes));
  EXPECT_EQ(decoded.segments, node.segments);
  EXPECT_EQ(decoded.TotalBytes(), 8207U);
  EXPECT_FALSE(DecodeContentNode(bytes.substr(1)));
  EXPECT_FALSE(DecodeContentNode(bytes + "x"));
  const auto refused = [](const ContentNode& bad) { return !DecodeContentNode(EncodeContentNode(bad)).has_value(); };
  EXPECT_TRUE(refused({0, {}}));
  EXPECT_TRUE(refused({0, {{0, HashBytes("a")}}}));
  EXPECT_TRUE(refused({0, {{4096, {}}, {4096, {}}}}));      // two holes are one
  EXPECT_TRUE(refused({0, {{100, {}}}}));                   // not whole blocks
  EXPECT_TRUE(refused({1, {{4096, {}}}}));                  // a hole above the leaves
  EXPECT_TRUE(refused({0, {{kMaxFileSize, HashBytes("a")}, {1, HashBytes("a")}}}));
  EXPECT_TRUE(refused({16, {{1, HashBytes("a")}}}));
  EXPECT_TRUE(refused({0, std::vector<Segment>(1025, {1, HashBytes("a")})}));
}

TEST(Manifest, RoundTrip) {
  const Manifest manifest = testing::SampleManifest();
  const std::string bytes = Must(EncodeManifest(manifest));
  EXPECT_LT(bytes.size(), 4096U);
  EXPECT_EQ(Must(DecodeManifest(bytes)), manifest);
  for (size_t size = 0; size < bytes.size(); ++size) {
    const auto cut = DecodeManifest(bytes.substr(0, size));
    EXPECT_TRUE(!cut || *cut != manifest) << size;
  }
}

TEST(Manifest, FieldsOfTheFuture) {
  const std::string bytes = Must(EncodeManifest(testing::SampleManifest()));
  const std::string optional = bytes + std::string("\x01\x80\x02\0\0\0hi", 8);
  EXPECT_EQ(Must(DecodeManifest(optional)), testing::SampleManifest());
  const auto unknown = DecodeManifest(bytes + std::string("\xff\x7f\x02\0\0\0hi", 8));
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, EPROTONOSUPPORT);
  std::string version = bytes;
  version[1] = 2;
  EXPECT_EQ(DecodeManifest(version).error().code, EPROTONOSUPPORT);
}

TEST(Manifest, Limits) {
  Manifest manifest = testing::SampleManifest();
  manifest.message = std::string(kMaxMessageBytes, 'm');
  EXPECT_TRUE(EncodeManifest(manifest));
  manifest.message += 'm';
  EXPECT_EQ(EncodeManifest(manifest).error().code, E2BIG);
  manifest.message.clear();
  manifest.omissions.assign(2000, std::string(40, 'o'));
  EXPECT_EQ(EncodeManifest(manifest).error().code, E2BIG);
  manifest.omissions.clear();
  manifest.root.type = FileType::kFifo;
  EXPECT_FALSE(EncodeManifest(manifest));
}

TEST(Manifest, MountsAreSorted) {
  Manifest manifest = testing::SampleManifest();
  Manifest shuffled = manifest;
  std::swap(shuffled.mounts[0], shuffled.mounts[1]);
  EXPECT_EQ(Must(EncodeManifest(shuffled)), Must(EncodeManifest(manifest)));
}

}  // namespace
}  // namespace mirage

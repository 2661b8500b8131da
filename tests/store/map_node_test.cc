// Maps: the same pairs give the same nodes, a small change rewrites little, and the difference finds just what differs.
#include "store/map_node.h"

#include <algorithm>
#include <map>
#include <random>

#include "tests/testing/memory_objects.h"
#include "tests/testing/store_fixture.h"

namespace mirage {
namespace {

using testing::MemoryObjects;
using testing::Must;
using Pairs = std::map<std::string, std::string>;

ObjectId Build(MemoryObjects& objects, const Pairs& pairs, ObjectKind kind = ObjectKind::kTree) {
  MapBuilder builder(objects, kind);
  for (const auto& [key, value] : pairs) Must(builder.Add(key, value));
  EXPECT_EQ(builder.count(), pairs.size());
  return Must(builder.Finish());
}

Pairs ManyPairs(size_t count, size_t value_bytes = 80) {
  Pairs pairs;
  for (size_t i = 0; i < count; ++i) {
    const std::string key = fmt::format("file-{:06}", i);
    std::string value = key;
    value.resize(value_bytes, '.');
    pairs[key] = value;
  }
  return pairs;
}

Pairs ReadAll(const MapReader& reader, const ObjectId& root, uint64_t index = 0) {
  Pairs pairs;
  Must(reader.ScanFrom(root, index, [&](std::string_view key, std::string_view value) {
    EXPECT_TRUE(pairs.empty() || pairs.rbegin()->first < key);
    pairs.emplace(key, value);
    return true;
  }));
  return pairs;
}

struct Differing {
  std::string key;
  std::optional<std::string> left, right;
  bool operator==(const Differing&) const = default;
};

std::vector<Differing> Difference(const MapReader& reader, const ObjectId& left, const ObjectId& right) {
  std::vector<Differing> found;
  Must(reader.Difference(left, right, [&](std::string_view key, auto l, auto r) -> Status {
    found.push_back({std::string(key), l ? std::optional(std::string(*l)) : std::nullopt,
                     r ? std::optional(std::string(*r)) : std::nullopt});
    return {};
  }));
  return found;
}

std::vector<Differing> BruteForce(const Pairs& left, const Pairs& right) {
  std::map<std::string, Differing> all;
  for (const auto& [key, value] : left) all[key] = {key, value, std::nullopt};
  for (const auto& [key, value] : right) {
    all.try_emplace(key, key, std::nullopt, std::nullopt);
    all[key].right = value;
  }
  std::vector<Differing> differing;
  for (const auto& [key, both] : all) {
    if (both.left != both.right) differing.push_back(both);
  }
  return differing;
}

TEST(Map, Empty) {
  MemoryObjects objects;
  const ObjectId root = Build(objects, {});
  EXPECT_EQ((objects.objects[{ObjectKind::kTree, root}]), std::string("t\1\0\0\0\0\0\0", 8));
  const MapReader reader(objects, ObjectKind::kTree, 1 << 20);
  for (const ObjectId& id : {root, ObjectId{}}) {
    EXPECT_EQ(Must(reader.Count(id)), 0U);
    EXPECT_FALSE(Must(reader.Find(id, "a")));
    EXPECT_TRUE(ReadAll(reader, id).empty());
    EXPECT_TRUE(Difference(reader, id, root).empty());
  }
}

TEST(Map, RefusesWhatIsNoName) {
  MemoryObjects objects;
  MapBuilder names(objects, ObjectKind::kTree);
  for (const std::string& bad : {std::string(), std::string("."), std::string(".."), std::string("a/b"),
                                 std::string("a\0b", 3), std::string(kMaxNameBytes + 1, 'n')}) {
    EXPECT_FALSE(names.Add(bad, "v")) << bad;
  }
  Must(names.Add("b", "v"));
  EXPECT_EQ(names.Add("b", "v").error().code, EINVAL);
  EXPECT_EQ(names.Add("a", "v").error().code, EINVAL);
  Must(names.Add("\xff", "v"));  // unsigned bytes
  Must(names.Finish());
  MapBuilder paths(objects, ObjectKind::kLinks);
  EXPECT_FALSE(paths.Add("/a", "a"));
  Must(paths.Add("a/b", "a/b"));
}

TEST(Map, OneLeafUpToItsLimit) {
  MemoryObjects objects;
  Pairs pairs;
  size_t bytes = 8;
  for (int i = 0; bytes + 4 + 2 + 6 + 1000 <= kMapNodeBytes; ++i, bytes += 4 + 2 + 6 + 1000) {
    pairs[fmt::format("{:06}", i)] = std::string(1000, 'v');
  }
  const ObjectId root = Build(objects, pairs);
  EXPECT_EQ(objects.objects.size(), 1U);
  const auto encoding = objects.objects.begin()->second;
  EXPECT_EQ(encoding.size(), bytes);
  EXPECT_EQ(Must(MapNode::Decode(ObjectKind::kTree, encoding))->size(), pairs.size());
  EXPECT_EQ(root, HashBytes(encoding));
}

TEST(Map, HundredThousandPairs) {
  MemoryObjects objects;
  const Pairs pairs = ManyPairs(100'000);
  const ObjectId root = Build(objects, pairs);
  for (const auto& [key, encoding] : objects.objects) EXPECT_LE(encoding.size(), kMapNodeMaxBytes);

  const MapReader reader(objects, ObjectKind::kTree, 1 << 20);  // less than the map: nodes come and go
  EXPECT_EQ(Must(reader.Count(root)), pairs.size());
  EXPECT_EQ(ReadAll(reader, root), pairs);
  for (const uint64_t index : {uint64_t{1}, uint64_t{777}, uint64_t{50'000}, uint64_t{99'999}, uint64_t{100'000}}) {
    const Pairs rest = ReadAll(reader, root, index);
    EXPECT_EQ(rest, Pairs(std::next(pairs.begin(), static_cast<ptrdiff_t>(index)), pairs.end())) << index;
  }
  for (const auto& [key, value] : pairs) {
    if (key.back() != '7') continue;
    EXPECT_EQ(Must(reader.Find(root, key)), value);
  }
  for (const char* missing : {"a", "file-000000x", "zzz"}) EXPECT_FALSE(Must(reader.Find(root, missing)));
  std::vector<std::string> next;
  Must(reader.Scan(root, "file-0499995", [&](std::string_view key, std::string_view) {
    next.emplace_back(key);
    return next.size() < 2;
  }));
  EXPECT_EQ(next, (std::vector<std::string>{"file-050000", "file-050001"}));
  next.clear();
  Must(reader.Scan(root, "zzz", [&](std::string_view, std::string_view) { return ADD_FAILURE(), false; }));
}

TEST(Map, OneChangeRewritesOneNodeALevel) {
  MemoryObjects objects;
  Pairs pairs = ManyPairs(100'000);
  const ObjectId root = Build(objects, pairs);
  const int height = Must(MapNode::Decode(ObjectKind::kTree, objects.objects[{ObjectKind::kTree, root}]))->level();
  ASSERT_GT(height, 0);
  std::mt19937 random(7);
  const MapReader reader(objects, ObjectKind::kTree, 64 << 20);
  for (int round = 0; round < 10; ++round) {
    Pairs changed = pairs;
    auto at = std::next(changed.begin(), random() % 100'000);
    std::vector<Differing> expected;
    if (round % 3 == 0) {
      expected = {{at->first, at->second, std::nullopt}};
      changed.erase(at);
    } else if (round % 3 == 1) {
      const std::string key = at->first + "+";
      changed[key] = "new";
      expected = {{key, std::nullopt, "new"}};
    } else {
      expected = {{at->first, at->second, "changed"}};
      at->second = "changed";
    }
    const size_t before = objects.objects.size();
    const ObjectId edited = Build(objects, changed);
    // Where a border key goes or comes, or a leaf reaches its maximum, a neighbour is written too.
    EXPECT_LE(objects.objects.size() - before, 2 * static_cast<size_t>(height + 1)) << round;
    const size_t reads = objects.reads;
    EXPECT_EQ(Difference(reader, root, edited), expected);
    EXPECT_LE(objects.reads - reads, 8 * static_cast<size_t>(height + 1)) << round;
  }
}

TEST(Map, DifferenceAgainstBruteForce) {
  for (unsigned seed = 1; seed <= 30; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    MemoryObjects objects;
    Pairs left = ManyPairs(random() % 8000, 20 + random() % 200), right = left;
    // A few edits, ranges removed (shifted borders, other heights), or all new.
    const size_t edits = random() % 20;
    for (size_t i = 0; i < edits && !right.empty(); ++i) {
      const auto at = std::next(right.begin(), static_cast<ptrdiff_t>(random() % right.size()));
      switch (random() % 4) {
        case 0: right.erase(at); break;
        case 1: at->second = "changed"; break;
        case 2: right[at->first + "+"] = std::string(random() % 40'000, 'n'); break;
        default: right.erase(at, std::next(at, std::min<ptrdiff_t>(random() % 3000, std::distance(at, right.end()))));
      }
    }
    const ObjectId a = Build(objects, left), b = Build(objects, right);
    const MapReader reader(objects, ObjectKind::kTree, 1 << 20);
    EXPECT_EQ(ReadAll(reader, b), right);
    EXPECT_TRUE(Difference(reader, a, b) == BruteForce(left, right));
    EXPECT_TRUE(Difference(reader, b, a) == BruteForce(right, left));
    EXPECT_TRUE(Difference(reader, a, {}) == BruteForce(left, {}));
    EXPECT_TRUE(Difference(reader, {}, b) == BruteForce({}, right));
  }
}

TEST(Map, DifferencePrunesAfterARemovedRange) {
  MemoryObjects objects;
  const Pairs left = ManyPairs(50'000);
  Pairs right = left;
  right.erase(right.begin(), std::next(right.begin(), 20'000));  // other height perhaps, other borders above
  const ObjectId a = Build(objects, left), b = Build(objects, right);
  const size_t nodes = objects.objects.size();
  const MapReader reader(objects, ObjectKind::kTree, 64 << 20);
  EXPECT_EQ(Difference(reader, a, b).size(), 20'000U);
  EXPECT_LT(objects.reads, nodes * 6 / 10);
}

TEST(Map, LongKeysMakeNoTower) {
  MemoryObjects objects;
  Pairs pairs;
  for (int i = 0; i < 40; ++i) pairs[fmt::format("{:02}{}", i, std::string(65'000, 'p'))] = "first";
  const ObjectId root = Build(objects, pairs, ObjectKind::kLinks);
  const MapReader reader(objects, ObjectKind::kLinks, 1 << 20);
  EXPECT_EQ(ReadAll(reader, root), pairs);
  EXPECT_LE(Must(reader.Node(root))->level(), 6);
}

TEST(Map, MissingAndMisplacedNodesAreDamage) {
  MemoryObjects objects;
  const ObjectId root = Build(objects, ManyPairs(5000));
  const auto node = Must(MapNode::Decode(ObjectKind::kTree, objects.objects[{ObjectKind::kTree, root}]));
  ASSERT_GT(node->size(), 2U);
  const auto whole = objects.objects;
  objects.objects.erase({ObjectKind::kTree, node->child(1)});
  {
    const MapReader reader(objects, ObjectKind::kTree, 1 << 20);
    EXPECT_EQ(reader.Find(root, node->key(1)).error().code, EIO);
    EXPECT_TRUE(reader.Find(root, node->key(0)));
  }
  // A sound node in the wrong place, as after a mix-up: a sibling, or the root itself (which would never end).
  for (const ObjectId& wrong : {node->child(0), root}) {
    objects.objects = whole;
    objects.objects[{ObjectKind::kTree, node->child(1)}] = whole.at({ObjectKind::kTree, wrong});
    const MapReader reader(objects, ObjectKind::kTree, 1 << 20);
    EXPECT_EQ(reader.Find(root, node->key(1)).error().code, EIO);
    EXPECT_FALSE(reader.ScanFrom(root, 0, [](auto, auto) { return true; }));
  }
}

}  // namespace
}  // namespace mirage

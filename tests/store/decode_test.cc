// Hostile bytes: valid encodings with seeded damage. A decoder refuses or gives a value that encodes to the same bytes;
// built with sanitizers, this is where a length that was not checked shows.
#include <functional>
#include <random>

#include "store/encoding.h"
#include "store/map_node.h"
#include "tests/testing/memory_objects.h"
#include "tests/testing/object_samples.h"
#include "tests/testing/store_fixture.h"

namespace mirage {
namespace {

using testing::Must;

// What the decoded value encodes to; nothing: refused.
using Recode = std::function<std::optional<std::string>(const std::string&)>;

std::string Damage(std::string bytes, std::mt19937& random) {
  const auto place = [&](size_t size) { return size == 0 ? 0 : random() % size; };
  for (size_t edits = 1 + random() % 3; edits-- > 0;) {
    switch (random() % 7) {
      case 0: bytes.resize(place(bytes.size())); break;
      case 1: bytes.append(1 + random() % 40, static_cast<char>(random())); break;
      case 2: bytes.insert(place(bytes.size()), 1 + random() % 8, static_cast<char>(random())); break;
      case 3: bytes.erase(place(bytes.size()), 1 + random() % 8); break;
      case 4:
        if (bytes.size() >= 4) {  // a length or an offset
          static constexpr uint32_t kNumbers[] = {0, 1, 8, 0xff, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff};
          std::memcpy(bytes.data() + place(bytes.size() - 3), &kNumbers[random() % std::size(kNumbers)], 4);
        }
        break;
      default:
        if (!bytes.empty()) bytes[place(bytes.size())] ^= static_cast<char>(1 << random() % 8);
    }
  }
  return bytes;
}

void Torture(const std::vector<std::string>& valid, const Recode& recode) {
  for (const std::string& bytes : valid) {
    ASSERT_EQ(recode(bytes), bytes);
    for (unsigned seed = 0; seed < 4000; ++seed) {
      std::mt19937 random(seed);
      const std::string damaged = Damage(bytes, random);
      const auto again = recode(damaged);
      ASSERT_TRUE(!again || *again == damaged) << "seed " << seed << ": accepted, but not canonical";
    }
  }
}

TEST(Decode, Entry) {
  std::vector<std::string> valid;
  for (const Entry& entry : testing::SampleEntries()) valid.push_back(EncodeEntry(entry));
  Torture(valid, [](const std::string& bytes) -> std::optional<std::string> {
    const auto entry = DecodeEntry(bytes);
    return entry ? std::optional(EncodeEntry(*entry)) : std::nullopt;
  });
}

TEST(Decode, Xattrs) {
  Torture({Must(EncodeXattrs({{"user.a", "1"}})),
           Must(EncodeXattrs({{"a", ""}, {"b", std::string(300, 'b')}, {"c", "c"}}))},
          [](const std::string& bytes) -> std::optional<std::string> {
            const auto set = DecodeXattrs(bytes);
            return set ? std::optional(Must(EncodeXattrs(*set))) : std::nullopt;
          });
}

TEST(Decode, ContentNode) {
  Torture({EncodeContentNode({0, {{10, HashBytes("a")}, {8192, {}}, {5, HashBytes("b")}}}),
           EncodeContentNode({2, std::vector<Segment>(20, {1 << 20, HashBytes("child")})})},
          [](const std::string& bytes) -> std::optional<std::string> {
            const auto node = DecodeContentNode(bytes);
            return node ? std::optional(EncodeContentNode(*node)) : std::nullopt;
          });
}

TEST(Decode, Manifest) {
  Torture({Must(EncodeManifest(testing::SmallManifest())), Must(EncodeManifest(testing::SampleManifest()))},
          [](const std::string& bytes) -> std::optional<std::string> {
            const auto manifest = DecodeManifest(bytes);
            if (!manifest) return std::nullopt;
            const std::string again = Must(EncodeManifest(*manifest));
            // Optional fields of a later version are passed over, and so not encoded again.
            return again == bytes || again.size() < bytes.size() ? bytes : again;
          });
}

TEST(Decode, MapNode) {
  testing::MemoryObjects objects;
  for (const size_t count : {size_t{0}, size_t{3}, size_t{2000}}) {
    MapBuilder builder(objects, ObjectKind::kTree);
    for (size_t i = 0; i < count; ++i) Must(builder.Add(fmt::format("{:05}", i), "some value"));
    Must(builder.Finish());
  }
  std::vector<std::string> valid;
  for (const auto& [key, encoding] : objects.objects) {
    const bool is_inner = encoding[2] != 0;
    if (is_inner || encoding.size() < 4000) valid.push_back(encoding);
  }
  ASSERT_GE(valid.size(), 3U);
  Torture(valid, [](const std::string& bytes) -> std::optional<std::string> {
    const auto node = MapNode::Decode(ObjectKind::kTree, bytes);
    if (!node) return std::nullopt;
    // Everything in it can be reached; then its layout leaves no freedom.
    std::string again = bytes.substr(0, 4), items;
    Put<uint32_t>(&again, static_cast<uint32_t>((*node)->size()));
    for (size_t i = 0; i < (*node)->size(); ++i) {
      Put<uint32_t>(&again, static_cast<uint32_t>(8 + 4 * (*node)->size() + items.size()));
      EXPECT_EQ((*node)->LowerBound((*node)->key(i)), i);
      Put<uint16_t>(&items, static_cast<uint16_t>((*node)->key(i).size()));
      items += (*node)->key(i);
      if ((*node)->level() == 0) {
        items += (*node)->value(i);
      } else {
        PutId(&items, (*node)->child(i));
        Put<uint64_t>(&items, (*node)->child_count(i));
      }
    }
    return again + items;
  });
}

}  // namespace
}  // namespace mirage

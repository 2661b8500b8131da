// FORMAT.md's examples are what the program reads and writes: each ```hex NAME block is parsed here and compared.
#include <fstream>
#include <map>
#include <sstream>

#include "store/map_node.h"
#include "store/pack.h"
#include "tests/testing/memory_objects.h"
#include "tests/testing/object_samples.h"
#include "tests/testing/store_fixture.h"

namespace mirage {
namespace {

using testing::Must;

// Bytes as pairs of hex digits; what stands behind '#' in a line is a remark.
std::string ParseHex(const std::string& line) {
  std::istringstream words(line.substr(0, line.find('#')));
  std::string bytes;
  for (std::string word; words >> word;) {
    EXPECT_EQ(word.size() % 2, 0U) << line;
    for (size_t i = 0; i + 1 < word.size(); i += 2) {
      size_t used = 0;
      bytes += static_cast<char>(std::stoi(word.substr(i, 2), &used, 16));
      EXPECT_EQ(used, 2U) << line;
    }
  }
  return bytes;
}

const std::map<std::string, std::string>& Examples() {
  static const std::map<std::string, std::string> examples = [] {
    std::map<std::string, std::string> found;
    std::ifstream file(MIRAGE_FORMAT_MD);
    EXPECT_TRUE(file) << MIRAGE_FORMAT_MD;
    std::string name;
    for (std::string line; std::getline(file, line);) {
      if (line.starts_with("```hex ")) {
        name = line.substr(7);
        EXPECT_TRUE(found.emplace(name, "").second) << name << " is there twice";
      } else if (line.starts_with("```")) {
        name.clear();
      } else if (!name.empty()) {
        found[name] += ParseHex(line);
      }
    }
    return found;
  }();
  return examples;
}

std::string Example(const std::string& name) {
  const auto found = Examples().find(name);
  EXPECT_NE(found, Examples().end()) << "FORMAT.md has no example " << name;
  return found == Examples().end() ? "" : found->second;
}

std::string Hex(std::string_view bytes) {
  std::string hex;
  for (const char c : bytes) hex += fmt::format("{:02x} ", static_cast<unsigned char>(c));
  return hex;
}

TEST(Format, Entry) {
  const Entry file = testing::SampleEntries().front();
  EXPECT_EQ(Hex(Example("entry")), Hex(EncodeEntry(file)));
  EXPECT_EQ(Must(DecodeEntry(Example("entry"))), file);
  Entry link;
  link.type = FileType::kSymlink;
  link.mode = 0777;
  link.target = "../lib";
  link.size = 6;
  EXPECT_EQ(Hex(Example("entry-symlink")), Hex(EncodeEntry(link)));
}

TEST(Format, XattrSet) {
  EXPECT_EQ(Hex(Example("xattrs")), Hex(Must(EncodeXattrs({{"user.b", "2"}, {"user.a", "one"}}))));
}

TEST(Format, ContentNode) {
  const ContentNode node{0, {{20'000, HashBytes("a chunk")}, {8192, {}}}};
  EXPECT_EQ(Hex(Example("content-node")), Hex(EncodeContentNode(node)));
  EXPECT_EQ(Must(DecodeContentNode(Example("content-node"))).segments, node.segments);
}

TEST(Format, MapNodes) {
  testing::MemoryObjects objects;
  MapBuilder links(objects, ObjectKind::kLinks);
  for (const char* path : {"bin/gunzip", "bin/uncompress"}) Must(links.Add(path, "bin/gunzip"));
  const ObjectId id = Must(links.Finish());
  EXPECT_EQ(Hex(Example("map-leaf")), Hex(objects.objects.at({ObjectKind::kLinks, id})));
  const auto inner = Must(MapNode::Decode(ObjectKind::kTree, Example("map-inner")));
  EXPECT_EQ(inner->level(), 1);
  ASSERT_EQ(inner->size(), 2U);
  EXPECT_EQ(inner->key(0), "m");
  EXPECT_EQ(inner->child(0), HashBytes("left"));
  EXPECT_EQ(inner->child_count(0), 400U);
  EXPECT_EQ(inner->key(1), "zsh");
  EXPECT_EQ(inner->leaf_count(), 700U);
}

TEST(Format, Manifest) {
  EXPECT_EQ(Hex(Example("manifest")), Hex(Must(EncodeManifest(testing::SmallManifest()))));
  EXPECT_EQ(Must(DecodeManifest(Example("manifest"))), testing::SmallManifest());
}

TEST(Format, Pack) {
  const std::string bytes = Example("pack");
  std::string uuid;
  for (char i = 0; i < 16; ++i) uuid += i;
  const testing::TemporaryDirectory directory;
  constexpr PackNumber kNumber = 0x0102030405060708;
  const std::string path = directory / PackFileName(kNumber);
  Must(WriteFileAtomically(Env::Default(), path, bytes));
  std::vector<std::string> found;
  Location place;
  Must(ScanPack(Env::Default(), path, kNumber, uuid, [&](const Location& location, const Block& block) -> Status {
    for (size_t i = 0; i < block.rows().size(); ++i) {
      EXPECT_EQ(block.rows()[i].kind, ObjectKind::kChunk);
      EXPECT_EQ(block.rows()[i].id, HashBytes(block.Bytes(i)));
      found.emplace_back(block.Bytes(i));
    }
    place = location;
    return {};
  }));
  EXPECT_EQ(found, (std::vector<std::string>{"hello\n", "mirage\n"}));
  place.slot = 1;
  EXPECT_EQ(Hex(Example("chunk-index-value")), Hex(EncodeLocation(place)));
  EXPECT_EQ(Must(DecodeLocation(Example("chunk-index-value"))), place);

  // The frame is zstd's own affair; all around it is written again as it was.
  const std::string again = directory / "again";
  const auto writer = Must(PackWriter::Create(Env::Default(), again, kNumber, uuid));
  CompressedBlock block;
  for (const std::string& object : found) {
    block.rows.push_back({ObjectKind::kChunk, static_cast<uint32_t>(object.size()), HashBytes(object)});
    block.raw_bytes += static_cast<uint32_t>(object.size());
  }
  const size_t head = 32 + 40 * found.size();
  block.frame = bytes.substr(place.offset + head, place.record_bytes - head);
  Must(writer->Append(block));
  Must(writer->Finish());
  EXPECT_EQ(Hex(Must(ReadWholeFile(Env::Default(), again, 1 << 20))), Hex(bytes));
}

}  // namespace
}  // namespace mirage

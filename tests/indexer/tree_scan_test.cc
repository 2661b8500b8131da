#include "indexer/tree_scan.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace mirage::testing {
namespace {

TEST(TarExcludesTest, WhatDoesNotFitSavesTheLeast) {
  TarExcludes excludes(100);
  excludes.AddPattern("/asked-for/*");  // always passed on
  EXPECT_TRUE(excludes.Add("large", 1000));
  EXPECT_TRUE(excludes.Add("small", 10));
  EXPECT_TRUE(excludes.AddAllBelow("directory", 5000));
  EXPECT_TRUE(excludes.Add("middle", 500));
  EXPECT_TRUE(excludes.Add("st*range[1]", 2000));
  EXPECT_FALSE(excludes.Add("two\nlines", 1 << 20));  // no line of the file that tar reads
  const auto& kept = excludes.patterns();
  const auto has = [&](const char* pattern) { return std::find(kept.begin(), kept.end(), pattern) != kept.end(); };
  EXPECT_TRUE(has("/asked-for/*") && has("./directory/*") && has("./st\\*range\\[1\\]"));
  EXPECT_FALSE(has("./small"));
  size_t bytes = 0;
  for (const std::string& pattern : kept) bytes += pattern.size() + 8;
  EXPECT_LE(bytes, 100u);
}

}  // namespace
}  // namespace mirage::testing

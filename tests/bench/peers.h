// The store beside the programs people archive trees with: each imports the same three versions (versions.h) into a new
// repository of its own, round by round, all in one run; one that is not installed is named and skipped.
#pragma once

#include <string>
#include <vector>

#include "tests/bench/measure.h"
#include "tests/bench/versions.h"

namespace mirage::bench {

struct Peer {
  std::string name;
  std::string program;     // must be on PATH
  std::string create;      // bash: makes the empty repository at $REPO; not measured
  std::string import[3];   // bash: version N, which lies at $TREE, into $REPO
  std::string compact;     // bash: makes $REPO smaller once all are in it; empty: there is no such command
};

// `mirage`: the program to measure against them; it comes first.
std::vector<Peer> Peers(const std::string& mirage);

struct PeerResult {
  std::string name;
  Cost cost[3];         // medians over the rounds
  double size_mib[3];   // du of the whole repository after each version
  Cost compact;         // zero where there is nothing to run
  double compact_mib = 0;
};

// One result a peer that is installed. `work`: an empty directory; its repositories are removed, but for the last
// round's with `keep`.
std::vector<PeerResult> ComparePeers(const std::vector<Peer>& peers, const Versions& versions, const std::string& work,
                                     int rounds, bool keep);
void PrintPeers(const std::vector<PeerResult>& results, bool json);

}  // namespace mirage::bench

// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/loop.h>

#include <gtest/gtest.h>

#include <array>

#include "expect.h"
#include "sim.h"
#include "strand.h"

// The pieces of a CPU loop (combinators/DESIGN.md, "Loops"): however they are cut and whoever runs
// them, neighbours are joined in order, each once, and the loop ends once, when all have ended.
//
// The links, the meetings and finish_piece() are the real ones. Offered pieces lie in slots here
// instead of deques.

namespace magpie::model {
namespace {

using detail::absorb_right;
using detail::BasicPieceLinks;
using detail::finish_piece;
using detail::link_right;

template <class Env>
class World {
 public:
  World(Sim& sim, unsigned size) : sim_(sim), size_(size) {}

  void work(unsigned self) {
    if (self == 0) run(make(0, size_));
    while (over_.load(std::memory_order_acquire) == 0) {
      bool found = false;
      for (auto& slot : offered_) {
        if (slot.load(std::memory_order_relaxed) == 0) continue;
        const unsigned taken = slot.exchange(0, std::memory_order_acq_rel);
        if (taken == 0) continue;
        run(*pieces_[taken - 1]);
        found = true;
      }
      if (!found) Env::yield_thread();
    }
  }

  void check() const {
    sim_.check(ends_ == 1, "the loop did not end once");
    for (unsigned i = 0; i < made_; ++i) {
      sim_.check(pieces_[i].gone_and_untouched(), "a piece was touched after its end");
    }
  }

 private:
  struct Piece : BasicPieceLinks<Env, Piece> {
    unsigned index = 0;
    unsigned first = 0;
    unsigned last = 0;
    unsigned done = 0;  // its value: [first, done)
  };

  Piece& make(unsigned first, unsigned last) {
    const unsigned index = made_++;
    Piece& piece = pieces_[index].make();
    piece.index = index;
    piece.first = first;
    piece.last = last;
    piece.done = first;
    return piece;
  }

  // Each position is a grain; a piece is cut down to one, or left as it is. What nobody has taken
  // by the time that its left neighbour is done is taken back, or left to others.
  void run(Piece& piece) {
    do {
      run_stretch(piece);
    } while (take_back(piece));
    const auto join = [this](Piece& left, Piece& right) {
      static_cast<void>(*pieces_[left.index]);  // alive
      sim_.check(left.done == right.first, "neighbours are joined out of order");
      left.done = right.done;
      pieces_[right.index].destroy();
    };
    if (!finish_piece<Env>(&piece, join)) return;
    sim_.check(ends_++ == 0, "the loop ends twice");
    sim_.check(pieces_[0]->first == 0 && pieces_[0]->done == size_, "the loop ends too early");
    pieces_[0].destroy();
    over_.store(1, std::memory_order_release);
  }

  void run_stretch(Piece& piece) {
    while (piece.last - piece.done > 1 && sim_.decide(2) == 0) {
      const unsigned middle = piece.done + (piece.last - piece.done + 1) / 2;
      Piece& right = make(middle, piece.last);
      link_right(piece, right);
      piece.last = middle;
      offered_[right.index].store(right.index + 1, std::memory_order_release);
    }
    sim_.pass();
    piece.done = piece.last;
  }

  bool take_back(Piece& piece) {
    if (piece.youngest == nullptr || sim_.decide(2) == 0) return false;
    const unsigned index = piece.youngest->index;
    if (offered_[index].exchange(0, std::memory_order_acq_rel) == 0) return false;
    sim_.check(piece.done == piece.youngest->first, "a neighbour is taken back out of order");
    Piece& right = absorb_right<Env>(piece);
    pieces_[right.index].destroy();
    return true;
  }

  Sim& sim_;
  const unsigned size_;
  std::array<Frame<Piece>, 4> pieces_;
  std::array<typename Env::template Atomic<unsigned>, 4> offered_;
  typename Env::template Atomic<int> over_{0};
  unsigned made_ = 0;
  unsigned ends_ = 0;
};

template <Mutant kMutant = Mutant::none>
Report play(Options options, unsigned workers, unsigned size) {
  return explore(options, [=](Sim& sim) {
    World<SimEnv<kMutant>> world(sim, size);
    for (unsigned i = 0; i < workers; ++i) {
      sim.spawn([&, i] { world.work(i); });
    }
    sim.run();
    world.check();
  });
}

TEST(LoopModel, TwoPiecesMeet) {
  expect_clean(play({.preemptions = 4}, 2, 2));
}

TEST(LoopModel, PiecesOfPiecesMeet) {
  expect_clean(play({.preemptions = bound(3)}, 2, 3));
  expect_clean(play({.preemptions = 2}, 2, 4));
  expect_clean(play({.preemptions = 2}, 3, 3));
}

TEST(LoopModel, ThreeWorkersInRandomSchedules) {
  for (const Strategy strategy : {Strategy::random, Strategy::pct}) {
    const Report report =
        play({.strategy = strategy, .executions = 20'000, .pct_depth = 4, .pct_length = 150}, 3, 4);
    EXPECT_TRUE(report.passed()) << report;
  }
}

TEST(LoopModelMutant, AMeetingIsOneStep) {
  hunt(play<Mutant::loop_plain_meeting>({.preemptions = 3}, 2, 2));
}

TEST(LoopModelMutant, ANeighbourThatIsTakenBackLeavesItsList) {
  hunt(play<Mutant::loop_absorbed_in_list>({.preemptions = 1}, 2, 2));
}

TEST(LoopModelMutant, ANeighbourLeavesItsListBeforeTheMeeting) {
  hunt(play<Mutant::loop_late_list>({.preemptions = 3}, 2, 3));
}

}  // namespace
}  // namespace magpie::model

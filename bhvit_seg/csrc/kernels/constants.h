// Coefficients of the two functions that are not one instruction. Both were fitted at Chebyshev
// nodes and rounded to float32.
#pragma once

namespace bhvit {

// 2^f for |f| <= 1/2, relative error 8e-8.
constexpr float kExp2[7] = {1.0f,
                            0.6931471824645996f,
                            0.24022650718688965f,
                            0.05550327152013779f,
                            0.00961802527308464f,
                            0.0013400432653725147f,
                            0.00015469732170458883f};
// Adding and subtracting it rounds to the nearest integer, ties to even.
constexpr float kRound = 12582912.0f;

// erfc(u / sqrt 2) = 2^(-u P(u)) for 0 <= u <= 5.5, absolute error 4e-8; beyond, the value of
// 5.5 stands in, which is 4e-8 itself.
constexpr float kErfc[11] = {0x1.26aec2p+0f,   0x1.d63eccp-2f,  0x1.ad6faap-5f,   -0x1.c3e9bcp-8f,
                             -0x1.1b1dccp-14f, 0x1.5a4380p-12f, -0x1.9fe558p-14f, 0x1.202898p-16f,
                             -0x1.f60282p-20f, 0x1.fea96cp-24f, -0x1.cf807ap-29f};
constexpr float kErfcEnd = 5.5f;

}  // namespace bhvit

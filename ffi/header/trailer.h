/* What the library was built with: fails to compile where an option of the compiler, such as one
   that packs structs, has changed the layout. */
#define MHA_ASSERT_(name, condition) typedef char mha_assert_##name[(condition) ? 1 : -1]
MHA_ASSERT_(float, sizeof(float) == 4);
MHA_ASSERT_(word, sizeof(size_t) == sizeof(void *) && sizeof(ptrdiff_t) == sizeof(void *));
MHA_ASSERT_(slice, sizeof(mha_slice) == 2 * sizeof(void *));
MHA_ASSERT_(config, sizeof(mha_config) == 8 * sizeof(void *) + (sizeof(void *) == 8 ? 16 : 12));
MHA_ASSERT_(layer, sizeof(mha_layer) == sizeof(mha_config) + 17 * sizeof(void *));
MHA_ASSERT_(mask, sizeof(mha_mask) == 7 * sizeof(void *));
MHA_ASSERT_(rope, sizeof(mha_rope) == (sizeof(void *) == 8 ? 80 : 48));
MHA_ASSERT_(cache, sizeof(mha_cache) == 4 * sizeof(void *) + 8 + 4 * sizeof(void *) + 6 * sizeof(void *));
MHA_ASSERT_(causal, sizeof(mha_causal) == 4 * sizeof(void *));
#if !defined(__i386__)
MHA_ASSERT_(dropout, sizeof(mha_dropout) == 16);
#endif
#undef MHA_ASSERT_

# mha_archive(variable): the name of the archive that fits what the compiler compiles for, told by its
# macros, that of the least code where MHA_SIZE is on; or MHA_ARCHIVE, where that is set. `lib` has a
# folder for each.
function(mha_archive variable)
  if(MHA_ARCHIVE)
    set(${variable} "${MHA_ARCHIVE}" PARENT_SCOPE)
    return()
  endif()
  if(CMAKE_C_COMPILER)
    set(compiler "${CMAKE_C_COMPILER}")
    separate_arguments(flags NATIVE_COMMAND "${CMAKE_C_FLAGS}")
  elseif(CMAKE_CXX_COMPILER)
    set(compiler "${CMAKE_CXX_COMPILER}")
    separate_arguments(flags NATIVE_COMMAND "${CMAKE_CXX_FLAGS}")
  else()
    message(FATAL_ERROR "mha: enable the language C or CXX first")
  endif()
  # add_compile_options of the directory that asks.
  get_directory_property(options DIRECTORY "${CMAKE_SOURCE_DIR}" COMPILE_OPTIONS)
  list(FILTER options INCLUDE REGEX "^-m")
  list(APPEND flags ${options})
  execute_process(
    COMMAND "${compiler}" ${flags} -E -P -x c "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/which.c"
    OUTPUT_VARIABLE said RESULT_VARIABLE result)
  if(NOT result EQUAL 0 OR NOT said MATCHES "mha_archive \"([^\"]*)\"")
    message(FATAL_ERROR "mha: no archive for this processor; set MHA_ARCHIVE to a folder of lib")
  endif()
  set(name "${CMAKE_MATCH_1}")
  # No macro tells an M7 from an M4.
  if(MHA_SIZE)
    set(name "${name}-size")
  elseif(name STREQUAL "thumbv7em-fp" AND "${flags}" MATCHES "cortex-m7")
    set(name "thumbv7em-fp-m7")
  endif()
  set(${variable} "${name}" PARENT_SCOPE)
endfunction()

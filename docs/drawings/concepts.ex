defmodule Snex.Drawings.Concepts do
  @moduledoc """
  The drawings of docs/concepts.md: one for each of its sections, under the name of its file.
  """

  import Snex.Drawings.Shapes

  def all do
    [
      {"concepts-processes", processes()},
      {"concepts-environments", environments()},
      {"concepts-objects", objects()},
      {"concepts-handles", handles()},
      {"concepts-timeouts", timeouts()},
      {"concepts-output", output()}
    ]
  end

  defp processes do
    svg("Your processes call Python through the NIF and pipes. The warden starts Python and ends it.", 380, [
      area(:elixir, {12, 12, 328, 268}, "The VM"),
      box(:elixir, {28, 48, 158, 64}, "Your processes", ["make calls"]),
      box(:elixir, {28, 184, 158, 64}, "Interpreter process", ["owns Python"]),
      box(:native, {220, 48, 108, 200}, "NIF", ["encodes values,", "hands answers", "to callers"]),
      arrow([{186, 70}, {220, 70}]),
      arrow([{220, 92}, {186, 92}]),
      arrow([{186, 216}, {220, 216}]),
      area(:python, {492, 12, 216, 268}, "Python's processes"),
      box(:python, {508, 48, 184, 92}, "Python", ["runs your code", "on an event loop"]),
      box(:python, {508, 184, 184, 64}, "Children", ["that your code has started"]),
      arrow([{600, 140}, {600, 184}]),
      label({416, 60}, "pipe: requests", anchor: "middle"),
      arrow([{328, 67}, {508, 67}]),
      label({416, 88}, "pipes: answers, prints", anchor: "middle"),
      arrow([{508, 95}, {328, 95}]),
      label({416, 116}, "shared memory", anchor: "middle"),
      arrow([{328, 123}, {508, 123}], tips: :both, dashed: true),
      box(:warden, {332, 304, 150, 60}, "Warden", ["a small program"]),
      arrow([{274, 248}, {274, 334}, {332, 334}]),
      label({264, 320}, "starts it. When the VM ends,", anchor: "end"),
      label({264, 337}, "the socket between them closes", anchor: "end"),
      arrow([{482, 334}, {600, 334}, {600, 280}]),
      label({492, 326}, "starts Python,"),
      label({492, 352}, "ends all these processes")
    ])
  end

  defp environments do
    svg(
      "Environments are copies of the root environment. Their names are their own, and objects are shared.",
      316,
      [
        box(:elixir, {12, 104, 116, 48}, "`:init_script`"),
        arrow([{128, 128}, {154, 128}]),
        environment({154, 68}, "Root environment", "0", "lives with Python"),
        label({318, 93}, "copy"),
        arrow([{314, 100}, {350, 100}, {350, 72}, {380, 72}], dashed: true),
        label({318, 168}, "copy"),
        arrow([{314, 152}, {350, 152}, {350, 208}, {380, 208}], dashed: true),
        environment({380, 16}, "Copy for one call", "0", "dropped after the call"),
        environment({380, 152}, "Copy of make_env", "1", "kept by its handle"),
        box(:plain, {608, 104, 100, 64}, "`['env']`", ["one list"]),
        label({546, 58}, "seen"),
        arrow([{540, 64}, {580, 64}, {580, 124}, {608, 124}]),
        label({546, 216}, "seen"),
        arrow([{540, 200}, {580, 200}, {580, 148}, {608, 148}]),
        arrow([{234, 188}, {234, 292}, {658, 292}, {658, 168}]),
        label({440, 286}, "seen", anchor: "middle")
      ]
    )
  end

  defp environment({x, y}, title, count, end_of_life) do
    box(:python, {x, y, 160, 120}, title, ["`seen`", "`count = #{count}`", end_of_life])
  end

  defp objects do
    svg("A value is copied to Python. An object stays there, and Elixir has a reference to it.", 262, [
      area(:elixir, {12, 12, 296, 238}, "Elixir"),
      area(:python, {412, 12, 296, 238}, "Python"),
      box(:elixir, {28, 48, 264, 78}, "A value", ["`[3, 1, 2]`"]),
      box(:python, {428, 48, 264, 78}, "A list of its own", ["`[3, 1, 2]`"]),
      label({360, 80}, "copied", anchor: "middle"),
      arrow([{292, 87}, {428, 87}], tips: :both),
      box(:elixir, {28, 152, 264, 78}, "A reference", ["`#Snex.Object<list 17>`"]),
      box(:python, {428, 152, 264, 78}, "The list itself", ["`[1, 2, 3]`"]),
      label({360, 184}, "refers to", anchor: "middle"),
      arrow([{292, 191}, {428, 191}])
    ])
  end

  defp handles do
    svg(
      "Elixir terms hold a handle, the handle holds an entry in Python's table, and that holds the object.",
      330,
      [
        area(:elixir, {12, 12, 402, 214}, "The VM"),
        box(:elixir, {28, 48, 140, 64}, "A process", ["has the term"]),
        box(:elixir, {28, 142, 140, 64}, "Another process", ["has the same term"]),
        box(:native, {258, 88, 140, 78}, "Handle", ["counts the terms", "that refer to it"]),
        arrow([{168, 80}, {208, 80}, {208, 112}, {258, 112}]),
        arrow([{168, 174}, {208, 174}, {208, 142}, {258, 142}]),
        area(:python, {466, 12, 242, 214}, "Python"),
        box(:python, {482, 48, 96, 64}, "Table", ["of handles"]),
        box(:python, {596, 48, 96, 64}, "Variables", ["if any"]),
        box(:plain, {482, 162, 210, 44}, "Environment or object"),
        arrow([{398, 127}, {440, 127}, {440, 80}, {482, 80}]),
        arrow([{530, 112}, {530, 162}]),
        arrow([{644, 112}, {644, 162}], dashed: true),
        step({208, 96}, 1),
        step({440, 104}, 2),
        step({530, 136}, 3),
        step({26, 252}, 1),
        text({46, 257}, "No process has the term any more, and the garbage collector has noticed."),
        step({26, 280}, 2),
        text({46, 285}, "The VM tells Python, without any call of yours."),
        step({26, 308}, 3),
        text({46, 313}, "Python removes the entry. If nothing else refers to the object, it is freed.")
      ]
    )
  end

  defp timeouts do
    svg(
      "At the timeout the caller gets its error. Code that awaits or blocks is interrupted and cleans up.",
      330,
      [
        label({300, 24}, "timeout", anchor: "middle", weight: "bold"),
        arrow([{300, 32}, {300, 318}], tips: :none, dashed: true),
        row(44, "The caller", []),
        bar(:elixir, {150, 44, 150}, "waits"),
        text({312, 62}, "`{:error, %Snex.Error{code: :response_timeout}}`", size: 12),
        row(104, "Code that awaits", []),
        bar(:python, {150, 104, 150}, "runs"),
        bar(:plain, {300, 104, 70}, "finally"),
        label({380, 122}, "asyncio.CancelledError is raised"),
        row(164, "Code that blocks", ["in Python"]),
        bar(:python, {150, 164, 150}, "runs"),
        bar(:plain, {300, 164, 70}, "finally"),
        label({380, 182}, "snex.Cancelled is raised, by a signal"),
        row(224, "Code that blocks", ["in C, and ignores", "the signal"]),
        bar(:python, {150, 224, 150}, "runs"),
        bar(:failure, {300, 224, 330}, "cannot be interrupted"),
        arrow([{450, 268}, {450, 252}]),
        label({450, 284}, "8 s later", anchor: "middle", weight: "bold"),
        label({450, 302}, "it counts as stuck,", anchor: "middle"),
        label({450, 318}, "and is logged", anchor: "middle"),
        arrow([{630, 268}, {630, 252}]),
        label({630, 284}, "30 s after that", anchor: "middle", weight: "bold"),
        label({630, 302}, "Python is ended, and its", anchor: "middle"),
        label({630, 318}, "supervisor starts another", anchor: "middle")
      ]
    )
  end

  defp row(y, title, lines) do
    [
      text({12, y + 18}, title, weight: "bold", size: 13),
      for({line, index} <- Enum.with_index(lines, 1), do: label({12, y + 18 + 16 * index}, line))
    ]
  end

  defp output do
    svg(
      "Prints go to the caller of the code that prints, other output to the interpreter's, records to Logger.",
      300,
      [
        area(:python, {12, 12, 270, 276}, "Python"),
        box(:python, {28, 46, 238, 50}, "print, sys.stderr", ["in a call"]),
        box(:python, {28, 106, 238, 50}, "print, sys.stderr", ["outside of any call"]),
        box(:python, {28, 166, 238, 50}, "C code, child processes", ["standard output and error"]),
        box(:python, {28, 226, 238, 50}, "logging", ["with snex.LoggingHandler"]),
        area(:elixir, {408, 12, 300, 276}, "The VM"),
        box(:elixir, {424, 46, 268, 50}, "The caller's group leader", ["IEx, Livebook, a captured test"]),
        box(:elixir, {424, 124, 268, 74}, "Where :output says", [
          "by default the interpreter's",
          "group leader"
        ]),
        box(:elixir, {424, 226, 268, 50}, "Logger", ["with level, file, line and time"]),
        arrow([{266, 71}, {424, 71}]),
        arrow([{266, 131}, {345, 131}, {345, 152}, {424, 152}]),
        arrow([{266, 191}, {345, 191}, {345, 170}, {424, 170}]),
        arrow([{266, 251}, {424, 251}])
      ]
    )
  end
end

defmodule Snex.OsTest do
  # Texts that are not ASCII, in VMs that take them for UTF-8 and for Latin-1.
  use ExUnit.Case, async: true

  alias Snex.OtherVM

  @moduletag :tmp_dir
  @moduletag timeout: 180_000

  # Starts the Python at a path that is not ASCII, in a folder whose name is not, and compares the variables that it has with
  # those of a child of the VM's own. The paths come as they would stand in a source file, in UTF-8.
  @code """
  [python, folder] = for name <- ["PYTHON", "FOLDER"], do: name |> System.get_env() |> Base.decode16!()
  tell.(:file.native_name_encoding())
  System.put_env("PUT", "gr\\u00fcn")
  child = String.split(System.cmd("env", ["-0"]) |> elem(0), <<0>>, trim: true)
  {:ok, inp} = Snex.Interpreter.start_link(python: python, cd: folder, environment: %{"GIVEN" => "\\u00fc"}, python_path: folder)
  code = "import os; return [bytes(k + b'=' + v) for k, v in os.environb.items()], os.getcwdb()"
  {:ok, {variables, cwd}} = Snex.pyeval(inp, code)
  Snex.Interpreter.stop(inp)
  tell.({Enum.sort(child), Enum.sort(variables), cwd})
  """

  for {locale, encoding} <- [{"C", :latin1}, {"C.UTF-8", :utf8}] do
    test "Python gets the bytes that other children of the VM get, with LC_ALL=#{locale}", %{tmp_dir: tmp_dir} do
      folder = Path.join(tmp_dir, "größe")
      File.mkdir_p!(folder)
      # Not one of the scripts that look for the right Python: they change the variables.
      [{_, python} | _] = Snex.Case.pythons()
      {python, 0} = System.cmd(python, ["-c", "import sys; print(sys.executable, end='')"])
      link = Path.join(folder, "python")
      File.ln_s!(python, link)

      script = ~S"""
      export MIXED="$(printf 'ä\377\376b')" LATIN="$(printf 'gr\374n')" UTF="grün" EUROPE="10 €" PYTHONPATH="/opt/ö"
      exec "$0" "$@"
      """

      through = [
        "env",
        "LC_ALL=#{unquote(locale)}",
        "PYTHON=#{Base.encode16(link)}",
        "FOLDER=#{Base.encode16(folder)}",
        "sh",
        "-c",
        script
      ]

      vm = OtherVM.start(@code, through: through)
      assert OtherVM.await(vm) == unquote(encoding)
      {child, python, cwd} = OtherVM.await(vm)
      assert cwd == folder

      for variable <- ["MIXED=ä\xFF\xFEb", "LATIN=gr\xFCn", "UTF=grün", "EUROPE=10 €"],
          do: assert(variable in child and variable in python, inspect(variable))

      assert "GIVEN=ü" in python
      assert [path] = for("PYTHONPATH=" <> path <- python, do: path)
      assert [_package, ^folder, "/opt/ö"] = String.split(path, ":")
      own = ["GIVEN=", "PYTHONPATH=", "SNEX_TREE="]
      rest = Enum.reject(python, &String.starts_with?(&1, own))
      assert {rest -- child, child -- rest} == {[], ["PYTHONPATH=/opt/ö"]}
    end
  end
end

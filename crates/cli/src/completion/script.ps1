# PowerShell completion for PROGRAM: PROGRAM completion powershell | Out-String | Invoke-Expression
Register-ArgumentCompleter -Native -CommandName 'PROGRAM' -ScriptBlock {
    param($WordToComplete, $CommandAst, $CursorPosition)
    $Words = @($CommandAst.CommandElements | Where-Object { $_.Extent.EndOffset -lt $CursorPosition -or $_.Extent.Text -ne $WordToComplete } | ForEach-Object { $_.Extent.Text })
    $Program = $Words[0]
    $Before = @($Words | Select-Object -Skip 1)
    # Older versions lose an empty argument that is not quoted.
    $Current = if ($WordToComplete -eq '' -and $PSVersionTable.PSVersion -lt [version]'7.3') { '""' } else { $WordToComplete }
    $Lines = @(& $Program REQUEST @Before $Current 2>$null)
    $Flag = if ($WordToComplete -match '^(--[^=]*=)') { $Matches[1] } else { '' }
    $Lines | Where-Object { $_ -and $_ -notmatch '^:\d+$' } | ForEach-Object {
        $Text, $About = $_ -split "`t", 2
        if (-not $About) { $About = $Text }
        [System.Management.Automation.CompletionResult]::new("$Flag$Text", $Text, 'ParameterValue', $About)
    }
}
